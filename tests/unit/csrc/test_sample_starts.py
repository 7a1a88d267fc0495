"""Sample starts against a walk token by token, and against megatron-core's own helper."""

import numpy as np
import pytest

from megatron_jobs._data import sample_starts
from tests.megatron_datasets import megatron_native


def walk(lengths: np.ndarray, order: np.ndarray, seq_len: int) -> list[list[int]]:
    """Every token's (place, offset) written out; a start is where token k * seq_len stands."""
    tokens = [(i, o) for i, document in enumerate(order) for o in range(lengths[document])]
    starts = [[0, 0]]
    while len(starts) * seq_len < len(tokens):
        starts.append(list(tokens[len(starts) * seq_len]))
    return starts


@pytest.mark.parametrize("case", range(50))
def test_equals_a_walk_token_by_token(case: int) -> None:
    random = np.random.default_rng(case)
    documents = int(random.choice([1, 2, 7, 31]))
    lengths = random.integers(0, random.choice([2, 5, 40]), documents).astype(np.int32)
    order = random.integers(0, documents, int(random.choice([0, 1, 13, 97]))).astype(np.int32)
    seq_len, threads = int(random.choice([1, 2, 3, 8, 53])), int(random.integers(1, 5))
    got = sample_starts(lengths, order, seq_len=seq_len, threads=threads)
    assert got.dtype == np.int32
    assert got.tolist() == walk(lengths, order, seq_len)


@pytest.mark.parametrize("wide", [False, True])
def test_equals_megatron_over_many_blocks(wide: bool) -> None:
    """50,021 documents in shuffled order, threads that do not divide the blocks."""
    random = np.random.default_rng(3)
    lengths = random.lognormal(4, 1.2, 50_021).astype(np.int32) + 1
    order = random.permutation(50_021).astype(np.int32)
    tokens = int(lengths.sum())
    build = (
        megatron_native().build_sample_idx_int64
        if wide
        else megatron_native().build_sample_idx_int32
    )
    want = build(lengths, order, 512, 1, tokens, True, 1)
    got = sample_starts(lengths, order, seq_len=512, wide=wide, threads=3)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


LENGTHS = np.array([3, 4], np.int32)
ORDER = np.array([0, 1], np.int32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": LENGTHS.astype(np.int64)}, "lengths must be int32, got int64"),
        ({"order": ORDER.astype(np.uint32)}, "order must be int32, got uint32"),
        ({"order": ORDER[None]}, "order must be 1-D, got 2-D"),
        ({"order": ORDER[::-1]}, "order must be contiguous"),
        ({"order": np.array([0, 2], np.int32)}, r"order\[1\] is 2, lengths has 2 documents"),
        ({"order": np.array([-1], np.int32)}, r"order\[0\] is -1, lengths has 2 documents"),
        ({"lengths": np.array([3, -4], np.int32)}, r"lengths\[1\] is negative: -4"),
        ({"seq_len": 0}, "seq_len must be from 1 to 2147483646, got 0"),
        ({"seq_len": 2**31 - 1}, "seq_len must be from 1 to 2147483646, got 2147483647"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_names_the_argument_at_fault(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_starts(**{"lengths": LENGTHS, "order": ORDER, "seq_len": 2} | arguments)  # type: ignore[arg-type]


def test_of_several_wrong_numbers_the_first_is_named() -> None:
    """Whichever thread meets its one first."""
    order = np.zeros(200_000, np.int32)
    order[[60_001, 60_002, 120_000, 199_999]] = [5, 6, 7, 8]
    for _ in range(5):
        with pytest.raises(ValueError, match=r"order\[60001\] is 5, lengths has 2 documents"):
            sample_starts(LENGTHS, order, seq_len=2, threads=4)
