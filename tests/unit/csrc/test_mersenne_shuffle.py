"""The shuffle against numpy's own RandomState."""

from pathlib import Path

import numpy as np
import pytest

from megatron_jobs._data import Shuffler


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("seed", [0, 1234, 2**32 - 1])
def test_equals_numpy_over_several_calls(dtype: type, seed: int) -> None:
    """Sizes around powers of two, primes, 0 and 1, one random stream through all of them."""
    ours, numpys = Shuffler(seed), np.random.RandomState(seed)
    for size in (0, 1, 2, 3, 255, 256, 257, 258, 511, 513, 624, 7919, 0, 65537):
        got = np.arange(size, dtype=dtype)
        want = got.copy()
        ours.shuffle(got)
        numpys.shuffle(want)
        np.testing.assert_array_equal(got, want, err_msg=f"{size} values")


def test_equals_numpy_on_a_million() -> None:
    got = np.arange(1_000_003, dtype=np.int32)
    want = got.copy()
    Shuffler(7).shuffle(got)
    np.random.RandomState(7).shuffle(want)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.arange(4.0), "values must be int32, uint32 or int64, got float64"),
        (np.arange(4, dtype=np.int32).reshape(2, 2), "values must be 1-D, got 2-D"),
        (np.arange(8, dtype=np.int32)[::2], "values must be contiguous"),
        (np.frombuffer(bytes(9), dtype=np.int32, offset=1, count=2), "values must be aligned"),
        (np.frombuffer(bytes(8), dtype=np.int32), "values must be writable"),
    ],
)
def test_refuses_arrays_it_cannot_shuffle(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Shuffler(1).shuffle(values)


def test_refuses_more_than_32_bits_can_draw(tmp_path: Path) -> None:
    """A file with nothing but a hole: neither memory nor disk is used."""
    values = np.memmap(tmp_path / "hole", dtype=np.int32, mode="w+", shape=(2**32 + 1,))
    with pytest.raises(ValueError, match="values has 4294967297 items, at most 4294967296"):
        Shuffler(1).shuffle(values)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_refuses_seeds_that_numpy_refuses(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed must be from 0 to 4294967295, got {seed}"):
        Shuffler(seed)
    with pytest.raises(ValueError, match="Seed must be between"):
        np.random.RandomState(seed)
