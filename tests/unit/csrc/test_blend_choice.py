"""Blends against a slow greedy loop and against megatron-core's own helper, on every machine."""

import numpy as np
import pytest

from megatron_jobs._data import BLEND_BLOCK, blend, blend_counts, blend_part
from tests.megatron_datasets import megatron_native

MACHINES = ("plain", "avx2", "avx512")


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    """The code for each machine, where this one can run it."""
    name: str = request.param
    try:
        blend(np.ones(1), size=0, machine=name)
    except ValueError as error:
        pytest.skip(f"{name}: {error}")
    return name


def greedy(
    weights: np.ndarray, size: int, limits: np.ndarray | None = None
) -> tuple[list[int], list[int]]:
    """Give each sample to the source furthest behind, in plain Python floats."""
    taken = [0] * len(weights)
    sources, numbers = [], []
    for sample in range(size):
        left = [i for i, t in enumerate(taken) if limits is None or t < limits[i]]
        source = max(left, key=lambda i: float(weights[i]) * max(sample, 1) - taken[i])
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


def by_megatron(weights: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    wanted = np.zeros(size, np.int16), np.zeros(size, np.int64)
    megatron_native().build_blending_indices(*wanted, weights, len(weights), size, False)
    return wanted


def all_by_megatron(sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    wanted = np.zeros(sum(sizes), np.int16), np.zeros(sum(sizes), np.int64)
    megatron_native().build_exhaustive_blending_indices(*wanted, np.array(sizes), len(sizes))
    return wanted


WRONG_GUESS = [5.73e-8, 0.0912, 5.8e-8, 9.64e-6, 4.7e-5, 0.908, 5.34e-4, 2e-6]
"""Shares so small that a guessed count is still wrong after the warm-up: samples are done again."""
EQUAL = [1.0] * 6
ROUNDED = np.random.default_rng(5).dirichlet(np.ones(33)).tolist()


@pytest.mark.parametrize("weights", [[1, 1], [0.7, 0.2, 0.1], [1e-5, 1], WRONG_GUESS, EQUAL])
@pytest.mark.parametrize("threads", [1, 3])
def test_equals_megatron_with_lanes_that_guess(
    weights: list[float], threads: int, machine: str
) -> None:
    """Long enough that every lane of every thread warms up from a guess of the state before."""
    shares = np.array(weights) / np.sum(weights)
    wanted = by_megatron(shares, 1_100_003)
    got = blend(shares, size=1_100_003, threads=threads, machine=machine)
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


@pytest.mark.parametrize("sizes", [[1], [5, 1], [7, 7, 7], [100, 1, 13], [2, 997, 31]])
def test_all_samples_equal_megatron(sizes: list[int]) -> None:
    wanted = all_by_megatron(sizes)
    limits = np.array(sizes)
    got = blend(limits / sum(sizes), size=sum(sizes), limits=limits)
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])
    assert np.bincount(got[0]).tolist() == sizes


@pytest.mark.parametrize("sizes", [[200_003, 101_000, 7], [9] * 5 + [300_000], [100_000] * 3])
def test_all_samples_equal_megatron_in_lanes(sizes: list[int], machine: str) -> None:
    wanted = all_by_megatron(sizes)
    limits = np.array(sizes)
    shares = limits / sum(sizes)
    got = blend(shares, size=sum(sizes), limits=limits, threads=2, machine=machine)
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


def test_sources_that_are_spent_early_equal_the_slow_loop(machine: str) -> None:
    """Limits that are no shares of the weights: the rest goes on without the spent ones."""
    shares, limits = np.array([0.5, 0.3, 0.2]), np.array([1_000, 70_000, 69_003])
    wanted = greedy(shares, 140_003, limits)
    got = blend(shares, size=140_003, limits=limits, threads=2, machine=machine)
    assert got[0].tolist() == wanted[0]
    assert got[1].tolist() == wanted[1]


@pytest.mark.parametrize("weights", [[0.3, 0.7], WRONG_GUESS, ROUNDED])
def test_parts_from_counts_are_the_whole(weights: list[float], machine: str) -> None:
    shares = np.array(weights) / np.sum(weights)
    size = 9 * BLEND_BLOCK + 17
    source, number = blend(shares, size=size)
    counts = blend_counts(shares, size=size, threads=2, machine=machine)
    assert counts.shape == (11, len(weights))
    for block, taken in enumerate(counts[:-1]):
        first = block * BLEND_BLOCK
        held = min(BLEND_BLOCK, size - first)
        part = blend_part(shares, taken, first=first, size=held)
        np.testing.assert_array_equal(part[0], source[first : first + held])
        np.testing.assert_array_equal(part[1], number[first : first + held])
    assert counts[-1].tolist() == np.bincount(source, minlength=len(weights)).tolist()


def test_no_samples_have_no_blocks() -> None:
    assert blend_counts(np.array([0.5, 0.5]), size=0).tolist() == [[0, 0]]


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
    for build in (blend, blend_counts):
        with pytest.raises(ValueError, match=message):
            build(np.array(weights, np.float64), size=size)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ([3], "limits must have 2 sources, got 1"),
        ([], "limits must have 2 sources, got 0"),
        ([3, 0], r"limits\[1\] must be from 1 to 2\^53 - 1, got 0"),
        ([2**53, 1], r"limits\[0\] must be from 1 to 2\^53 - 1, got 9007199254740992"),
        ([2, 1], "size: 4 samples end beyond the 3 of limits"),
    ],
)
def test_names_what_is_wrong_with_limits(limits: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blend(np.array([0.5, 0.5]), size=4, limits=np.array(limits, np.int64))


@pytest.mark.parametrize(
    ("taken", "first", "message"),
    [
        ([1, 2, 3], 6, "taken must have 2 sources, got 3"),
        ([1, 2], 4, "taken must add up to first, 4, got 3"),
        ([-1, 0], -1, "first must not be negative, got -1"),
    ],
)
def test_names_what_is_wrong_with_a_part(taken: list[int], first: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blend_part(np.array([0.5, 0.5]), np.array(taken, np.int64), first=first, size=1)


def test_refuses_other_types() -> None:
    with pytest.raises(ValueError, match="weights must be float64, got float32"):
        blend(np.ones(1, np.float32), size=1)
    with pytest.raises(ValueError, match="limits must be int64, got int32"):
        blend(np.ones(1), size=1, limits=np.ones(1, np.int32))
    with pytest.raises(ValueError, match="limits must be an array or None"):
        blend(np.ones(1), size=1, limits=[1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        blend(np.ones(1), size=1, threads=0)
    with pytest.raises(ValueError, match="machine must be plain, avx2 or avx512, got sse"):
        blend(np.ones(1), size=1, machine="sse")
