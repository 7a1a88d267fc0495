"""Packing and paced draws against slow obvious versions, and every message."""

import collections

import numpy as np
import pytest
from numpy.typing import NDArray

from megatron_jobs._pack import best_fit, draw_paced

MASK = 2**64 - 1


def naive_bins(lengths: list[int], capacity: int) -> list[list[int]]:
    """Look at every bin for every piece."""
    bins: list[list[int]] = []
    rooms: list[int] = []
    touched: list[int] = []
    for time, piece in enumerate(sorted(range(len(lengths)), key=lambda i: -lengths[i])):
        fitting = [b for b, room in enumerate(rooms) if room >= lengths[piece]]
        if not fitting:
            fitting = [len(bins)]
            bins.append([])
            rooms.append(capacity)
            touched.append(0)
        best = min(fitting, key=lambda b: (rooms[b], -touched[b]))
        bins[best].append(piece)
        rooms[best] -= lengths[piece]
        touched[best] = time
    return [sorted(members) for members in bins]


def packed_bins(lengths: list[int], capacity: int) -> list[list[int]]:
    order, first = best_fit(np.array(lengths, np.int32), capacity=capacity)
    assert (order.dtype, first.dtype) == (np.int32, np.int64)
    ends = zip(first[:-1].tolist(), first[1:].tolist(), strict=True)
    return [order[start:end].tolist() for start, end in ends]


@pytest.mark.parametrize("capacity", [1, 2, 7, 63, 64, 65, 500, 4096, 4097, 300_000])
@pytest.mark.parametrize("pieces", [0, 1, 2, 13, 400])
def test_equals_looking_at_every_bin(capacity: int, pieces: int) -> None:
    for seed in range(4):
        draw = np.random.default_rng(seed)
        most = min(capacity, [capacity, 5, capacity // 3 + 1, capacity // 10 + 1][seed])
        lengths = draw.integers(1, most + 1, pieces).tolist()
        assert packed_bins(lengths, capacity) == naive_bins(lengths, capacity)


def test_the_fullest_bin_with_room_is_taken() -> None:
    """6 and 5 open two bins of 10; 4 fills the first and 3 goes to the second, with room for 2."""
    assert packed_bins([3, 5, 4, 6, 2], 10) == [[2, 3], [0, 1, 4]]


@pytest.mark.parametrize(
    ("lengths", "capacity", "message"),
    [
        ([1, 0], 4, r"lengths\[1\] is 0, must be from 1 to capacity 4"),
        ([1, 5], 4, r"lengths\[1\] is 5, must be from 1 to capacity 4"),
        ([], 0, "capacity must be at least 1, got 0"),
    ],
)
def test_pieces_that_cannot_be_packed(lengths: list[int], capacity: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        best_fit(np.array(lengths, np.int32), capacity=capacity)


def test_other_arrays_are_not_taken() -> None:
    with pytest.raises(ValueError, match="lengths must be int32, got int64"):
        best_fit(np.ones(3, np.int64), capacity=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lengths must be 1-D, got 2-D"):
        best_fit(np.ones((3, 2), np.int32), capacity=4)
    with pytest.raises(ValueError, match="lengths must be contiguous"):
        best_fit(np.ones(6, np.int32)[::2], capacity=4)


def naive_draws(values: list[int], horizons: list[int], seed: int) -> list[int]:
    """A pool that grows; the draws are splitmix64's, multiplied into range."""
    state = seed

    def below(count: int) -> int:
        nonlocal state
        while True:
            state = (state + 0x9E3779B97F4A7C15) & MASK
            z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
            product = (z ^ (z >> 31)) * count
            if product & MASK >= (2**64 - count) % count:
                return product >> 64

    pool = list(values)
    drawn: list[int] = []
    for time, horizon in enumerate(horizons):
        reach = min(max(horizon, time + 1), len(values)) - time
        place = below(reach)
        drawn.append(pool[place])
        pool[place] = pool[0]
        pool = pool[1:]
    return drawn


def paced(values: NDArray[np.int64], horizons: NDArray[np.int64], seed: int) -> list[int]:
    drawn = values.copy()
    draw_paced(drawn, horizons, seed=seed)
    return list(drawn.tolist())


@pytest.mark.parametrize("count", [0, 1, 2, 101])
@pytest.mark.parametrize("seed", [0, 7, MASK])
def test_draws_equal_a_growing_pool(count: int, seed: int) -> None:
    values = np.random.default_rng(count).permutation(count).astype(np.int64)
    for horizons in (np.arange(count) // 2, np.arange(count) + 10, np.full(count, count)):
        got = paced(values, horizons, seed)
        assert got == naive_draws(values.tolist(), horizons.tolist(), seed)
        assert sorted(got) == list(range(count))


def test_every_order_is_as_likely() -> None:
    """Of three values, two of which are in reach at first: 4 orders, a quarter each."""
    horizons = np.array([2, 3, 3])
    drawn = collections.Counter(tuple(paced(np.arange(3), horizons, s)) for s in range(4000))
    assert set(drawn) == {(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0)}
    assert all(900 < times < 1100 for times in drawn.values())


def test_horizons_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="horizons has 2 numbers, values has 3"):
        draw_paced(np.arange(3), np.arange(2), seed=0)
    with pytest.raises(ValueError, match=r"horizons\[2\] is 1, below the 2 before it"):
        draw_paced(np.arange(3), np.array([2, 2, 1]), seed=0)
    fixed = np.arange(3)
    fixed.setflags(write=False)
    with pytest.raises(ValueError, match="values must be writable"):
        draw_paced(fixed, np.arange(3), seed=0)
