"""Blends against a slow greedy loop and against megatron-core's own helper."""

import numpy as np
import pytest

from megatron_jobs._data import blend, blend_all
from tests.megatron_datasets import megatron_native


def greedy(weights: np.ndarray, size: int) -> tuple[list[int], list[int]]:
    """Give each sample to the source furthest behind, in plain Python floats."""
    taken = [0] * len(weights)
    sources, numbers = [], []
    for sample in range(size):
        behind = [float(w) * max(sample, 1) - t for w, t in zip(weights, taken, strict=True)]
        source = behind.index(max(behind))
        sources.append(source)
        numbers.append(taken[source])
        taken[source] += 1
    return sources, numbers


@pytest.mark.parametrize("sources", [1, 2, 3, 7, 31])
@pytest.mark.parametrize("size", [0, 1, 2, 211])
def test_equals_the_slow_loop(sources: int, size: int) -> None:
    weights = np.random.default_rng(sources).dirichlet(np.ones(sources))
    got = blend(weights, size=size, threads=2)
    want = greedy(weights, size)
    assert (got[0].dtype, got[1].dtype) == (np.int16, np.int64)
    assert got[0].tolist() == want[0]
    assert got[1].tolist() == want[1]


WRONG_GUESS = [5.73e-8, 0.0912, 5.8e-8, 9.64e-6, 4.7e-5, 0.908, 5.34e-4, 2e-6]
"""Shares so small that a guessed count is still wrong after the warm-up: a run is done again."""


@pytest.mark.parametrize("weights", [[1, 1], [0.7, 0.2, 0.1], [1e-5, 1], WRONG_GUESS])
@pytest.mark.parametrize("threads", [1, 3])
def test_equals_megatron_with_threads_that_guess(weights: list[float], threads: int) -> None:
    """Long enough that every thread warms up from a guess of the state before its run."""
    size = 1_100_003
    shares = np.array(weights) / np.sum(weights)
    wanted = np.zeros(size, np.int16), np.zeros(size, np.int64)
    megatron_native().build_blending_indices(*wanted, shares, len(weights), size, False)
    got = blend(shares, size=size, threads=threads)
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


@pytest.mark.parametrize("sizes", [[1], [5, 1], [7, 7, 7], [100, 1, 13], [2, 997, 31]])
def test_all_samples_equal_megatron(sizes: list[int]) -> None:
    total = sum(sizes)
    wanted = np.zeros(total, np.int16), np.zeros(total, np.int64)
    megatron_native().build_exhaustive_blending_indices(*wanted, np.array(sizes), len(sizes))
    got = blend_all(np.array(sizes))
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])
    assert np.bincount(got[0]).tolist() == sizes


@pytest.mark.parametrize(
    ("weights", "size", "message"),
    [
        ([], 1, "weights must have from 1 to 32766 sources, got 0"),
        ([1 / 32767] * 32767, 1, "weights must have from 1 to 32766 sources, got 32767"),
        ([1.0, 0.0], 1, r"weights\[1\] must be positive, got 0"),
        ([float("nan")], 1, r"weights\[0\] must be positive, got nan"),
        ([0.5, 0.6], 1, "weights must add up to 1, got 1.1"),
        ([1.0], -1, "size must not be negative, got -1"),
    ],
)
def test_names_what_is_wrong(weights: list[float], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blend(np.array(weights, np.float64), size=size)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "sizes must have from 1 to 32766 sources, got 0"),
        ([3, 0], r"sizes\[1\] must be positive, got 0"),
        ([2**62, 2**62], "sizes add up to over 2\\^63"),
    ],
)
def test_all_names_what_is_wrong(sizes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blend_all(np.array(sizes, np.int64))


def test_refuses_other_dtypes() -> None:
    with pytest.raises(ValueError, match="weights must be float64, got float32"):
        blend(np.ones(1, np.float32), size=1)
    with pytest.raises(ValueError, match="sizes must be int64, got int32"):
        blend_all(np.ones(1, np.int32))
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        blend(np.ones(1), size=1, threads=0)
