"""Runs of equal keys, union-find over shares, Bloom filters; against slow obvious versions."""

from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

from megatron_jobs._copies import Bloom, Links, near_edges, nearness, run_stars, sort_entries
from megatron_jobs.text.copies.arrays import I64, U64


def entries(size: int, kinds: int, seed: int = 0) -> tuple[U64, I64]:
    drawn = np.random.default_rng(seed)
    values = drawn.integers(0, 2**64, kinds, dtype=np.uint64)
    return values[drawn.integers(0, kinds, size)], drawn.integers(0, 2**40, size)


@pytest.mark.parametrize(
    ("size", "kinds"), [(0, 1), (1, 1), (2, 2), (47, 5), (5000, 3), (50_000, 40_000)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_entries_are_sorted(size: int, kinds: int, threads: int) -> None:
    keys, numbers = entries(size, kinds)
    order = np.lexsort((numbers, keys))
    wanted = keys[order], numbers[order]
    sort_entries(keys, numbers, threads=threads)
    np.testing.assert_array_equal(keys, wanted[0])
    np.testing.assert_array_equal(numbers, wanted[1])


def test_keys_of_a_narrow_range_are_sorted() -> None:
    keys = np.arange(3000, dtype=np.uint64)[::-1].copy() // 2 + np.uint64(2**63)
    numbers = np.arange(3000)
    sort_entries(keys, numbers)
    assert (np.diff(keys.astype(np.int64)) >= 0).all()
    assert numbers[:4].tolist() == [2998, 2999, 2996, 2997]


def test_stars_join_each_run() -> None:
    keys, numbers = entries(3000, 700)
    numbers %= 400
    runs = defaultdict(set)
    for key, number in zip(keys.tolist(), numbers.tolist(), strict=True):
        runs[key].add(number)
    wanted = {(n, min(run)) for run in runs.values() for n in run if n != min(run)}
    sort_entries(keys, numbers)
    assert set(map(tuple, run_stars(keys, numbers).tolist())) == wanted


def slow_labels(count: int, edges: I64) -> list[int]:
    """Search from each vertex in turn."""
    neighbours = defaultdict(list)
    for a, b in edges.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    labels = [-1] * count
    for start in range(count):
        waiting = [start] if labels[start] < 0 else []
        while waiting:
            vertex = waiting.pop()
            if labels[vertex] < 0:
                labels[vertex] = start
                waiting += neighbours[vertex]
    return labels


@pytest.mark.parametrize("measure", ["hamming", "minhash", "equal"])
def test_near_edges_are_a_forest_of_the_near_pairs(measure: str) -> None:
    drawn = np.random.default_rng(3)
    centres = drawn.integers(0, 256, (12, 16), dtype=np.uint8)
    signatures = centres[drawn.integers(0, 12, 150)]
    noisy = drawn.random(signatures.shape) < 0.05
    signatures = np.where(noisy, signatures ^ 1, signatures).astype(np.uint8)
    least = {"hamming": -2.0, "minhash": 0.85, "equal": 1.0}[measure]
    keys = drawn.integers(0, 6, 150).astype(np.uint64)
    numbers = np.arange(150)
    sort_entries(keys, numbers)
    pairs = np.array([(i, j) for i in range(150) for j in range(i)])
    near = nearness(signatures, pairs, measure=measure) >= least
    key_of = dict(zip(numbers.tolist(), keys.tolist(), strict=True))
    true = np.array([p for p, ok in zip(pairs.tolist(), near, strict=True) if ok])
    true = true[[key_of[a] == key_of[b] for a, b in true.tolist()]]
    found = near_edges(
        keys, numbers, rows=numbers, signatures=signatures, measure=measure, least=least, most=150
    )
    assert slow_labels(150, found) == slow_labels(150, true)
    assert len(found) == 150 - len(set(slow_labels(150, true)))
    assert set(map(tuple, found.tolist())) <= set(map(tuple, true.tolist()))


def test_nearness_is_counted() -> None:
    rows = np.array([[0, 255, 7, 7], [0, 254, 7, 7], [0, 255, 7, 7]], np.uint8)
    pairs = np.array([[1, 0], [2, 0]])
    assert nearness(rows, pairs, measure="hamming").tolist() == [-1, 0]
    assert nearness(rows, pairs, measure="equal").tolist() == [0, 1]
    estimate = (0.75 - 1 / 256) / (1 - 1 / 256)
    assert nearness(rows, pairs, measure="minhash").tolist() == pytest.approx([estimate, 1])


@pytest.mark.parametrize("seed", range(20))
def test_shares_that_hand_edges_down_hold_the_components(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    count = int(drawn.integers(1, 200))
    edges = drawn.integers(0, count, (int(drawn.integers(0, 250)), 2))
    edges = np.sort(edges[edges[:, 0] != edges[:, 1]], axis=1)[:, ::-1].copy()
    bounds = [0, *sorted(drawn.integers(0, count + 1, 4).tolist()), count]
    left, rounds = edges, 0
    shares = [Links(a, b) for a, b in pairwise(bounds)]
    while len(left):
        assert rounds < 5  # as many as there are shares, at most
        rounds += 1
        of_share = [left[(left[:, 0] >= a) & (left[:, 0] < b)].copy()
                    for a, b in pairwise(bounds)]  # fmt: skip
        left = np.concatenate([s.add(e) for s, e in zip(shares, of_share, strict=True)])
    parents = np.concatenate([share.parents() for share in shares])
    labels = np.arange(count)
    for _ in range(count):
        labels = parents[labels]
    assert labels.tolist() == slow_labels(count, edges)


def test_links_go_on_from_their_parents() -> None:
    links = Links(10, 15)
    assert links.add(np.array([[12, 3], [14, 12]])).tolist() == []
    again = Links.load(10, links.parents())
    assert again.add(np.array([[14, 5]])).tolist() == [[5, 3]]
    assert again.tops(np.array([14, 13])).tolist() == [12, 13]


def test_a_bloom_filter_forgets_nothing_and_seldom_errs() -> None:
    drawn = np.random.default_rng(0)
    keys = drawn.integers(0, 2**64, 300_000, dtype=np.uint64)
    bloom = Bloom(200_000, 0.01)
    assert bloom.bits == pytest.approx(200_000 * 9.585, rel=1e-3)
    assert bloom.probes == 7
    first = bloom.add(keys[:200_000])
    assert first.sum() < 0.01 * 200_000  # while it fills up
    assert bloom.add(keys[:200_000]).all()
    held = np.arange(200_000, 300_000)  # while the rest comes in
    expected = ((1 - np.exp(-7 * held / bloom.bits)) ** 7).sum()
    wrong = bloom.add(keys[200_000:]).sum()
    assert abs(wrong - expected) < 4 * np.sqrt(expected)


def test_arguments_are_named() -> None:
    keys, numbers = np.zeros(2, np.uint64), np.zeros(2, np.int64)
    with pytest.raises(ValueError, match="numbers must hold 2 values, got 1"):
        run_stars(keys, numbers[:1])
    with pytest.raises(ValueError, match="keys must be uint64, got int64"):
        run_stars(numbers, numbers)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"edges: 3 is not in the share \[5, 9\)"):
        Links(5, 9).add(np.array([[3, 1]]))
    with pytest.raises(ValueError, match=r"edges: \(6, 6\) must fall, from 0"):
        Links(5, 9).add(np.array([[6, 6]]))
    with pytest.raises(ValueError, match="parents: 7 of 6 must be from 0 to itself"):
        Links.load(5, np.array([5, 7]))
    with pytest.raises(ValueError, match=r"rows: 4 is none of 2 signatures"):
        near_edges(keys, numbers, rows=numbers + 4, signatures=np.zeros((2, 3), np.uint8),
                   measure="equal", least=1, most=1)  # fmt: skip
    with pytest.raises(ValueError, match="measure must be equal, hamming or minhash, got near"):
        nearness(np.zeros((2, 3), np.uint8), np.zeros((0, 2), np.int64), measure="near")
    with pytest.raises(ValueError, match="rate must be between 0 and 1, got 1"):
        Bloom(5, 1.0)
