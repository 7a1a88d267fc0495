"""Items that share a key, as edges: one partition of the range of the keys at a time.

edges/P.npy   int64 [edges, 2], numbers of items, the higher one first; none twice
edges/P.json  `PartitionFacts`, written last
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from megatron_jobs._copies import Links, near_edges, nearness, run_stars, sort_entries
from megatron_jobs.runtime.files import read_json, whole_file, write_json
from megatron_jobs.text.copies.arrays import I64, U64
from megatron_jobs.text.copies.edges import unique_edges
from megatron_jobs.text.copies.recall import BINS, bin_of
from megatron_jobs.text.copies.store import Fingerprints
from megatron_jobs.text.copies.texts import exact_similarities

EDGES = "edges"
AT_ONCE = 1 << 20
"""Entries whose signatures are compared at once."""
SAMPLED = 1 << 17
"""Edges of a partition whose similarity is looked at for the report."""


@dataclass(frozen=True)
class MatchRules:
    """Which items that share a key are joined."""

    least: float | None = None
    """Nearness of their signatures; None: sharing a key is enough."""
    most_compared: int = 256
    exact: float | None = None
    """Jaccard similarity of their texts, read again."""
    examples: int = 20
    """Pairs that are kept to be shown."""


@dataclass(frozen=True)
class PartitionFacts:
    """What came of a partition."""

    entries: int = 0
    edges: int = 0
    shared: list[float] = field(default_factory=list)
    """[BINS], for MinHash: keys shared by pairs of each similarity, estimated from a sample."""
    examples: list[list[float]] = field(default_factory=list)
    """[order, high, low, nearness] of pairs to be shown; `order` is random, but the same whatever
    partition finds the pair: the lowest of all are shown."""


def match_partition(
    prints: Fingerprints, folder: Path, number: int, *, of: int, rules: MatchRules
) -> None:
    """Write the edges of a partition, then its facts."""
    keys, items = prints.partition(number, of)
    sort_entries(keys, items)
    keys, items = _repeated(keys, items)
    if rules.exact is not None:
        edges, times = _verified(prints, keys, items, rules)
    else:
        stars = rules.least is None
        edges, times = unique_edges(
            run_stars(keys, items) if stars else _near(prints, keys, items, rules)
        )
    with whole_file(folder / EDGES / f"{number:06d}.npy") as part, part.open("wb") as file:
        np.save(file, edges)
    shared, examples = _look_at(prints, edges, times, rules)
    facts = PartitionFacts(len(keys), len(edges), shared, examples)
    write_json(folder / EDGES / f"{number:06d}.json", asdict(facts))


def partition_is_done(folder: Path, number: int) -> bool:
    """Whether its facts are written."""
    return (folder / EDGES / f"{number:06d}.json").exists()


def read_facts(folder: Path, numbers: Sequence[int]) -> list[PartitionFacts]:
    """The facts of partitions that are done."""
    return [PartitionFacts(**read_json(folder / EDGES / f"{n:06d}.json")) for n in numbers]


def _repeated(keys: U64, items: I64) -> tuple[U64, I64]:
    """Sorted entries without those whose key is no other's."""
    if not len(keys):
        return keys, items
    same = keys[1:] == keys[:-1]
    kept = np.concatenate([[False], same]) | np.concatenate([same, [False]])
    return keys[kept], items[kept]


def _near(prints: Fingerprints, keys: U64, items: I64, rules: MatchRules) -> I64:
    """Edges of a spanning forest of the near pairs in each run, some runs at a time."""
    assert rules.least is not None
    found = [np.zeros((0, 2), np.int64)]
    first = 0
    while first < len(keys):
        last = min(first + AT_ONCE, len(keys))
        if last < len(keys):  # a run is not cut: go back to where it starts, or on to its end
            start = int(np.searchsorted(keys, keys[last]))
            last = start if start > first else int(np.searchsorted(keys, keys[last], side="right"))
        some = items[first:last]
        numbers, rows = np.unique(some, return_inverse=True)
        found.append(
            near_edges(
                keys[first:last],
                some,
                rows=rows.astype(np.int64),
                signatures=prints.signatures(numbers),
                measure=prints.settings.measure,
                least=rules.least,
                most=rules.most_compared,
            )
        )
        first = last
    return np.concatenate(found)


def _verified(prints: Fingerprints, keys: U64, items: I64, rules: MatchRules) -> tuple[I64, I64]:
    """Edges that join all pairs of texts which are alike, and how many keys showed each.

    All of a run are compared with its first; then those that this has not joined, each with
    `most_compared` before it.
    """
    assert rules.exact is not None
    stars, times = unique_edges(run_stars(keys, items))
    alike = exact_similarities(prints, stars) >= rules.exact
    stars, times = stars[alike], times[alike]
    others, other_times = unique_edges(_apart(keys, items, stars, rules.most_compared))
    alike = exact_similarities(prints, others) >= rules.exact
    edges = np.concatenate([stars, others[alike]])
    return edges, np.concatenate([times, other_times[alike]])


def _apart(keys: U64, items: I64, edges: I64, most: int) -> I64:
    """Pairs in one run that `edges` do not join, without those of a run's first.

    Args:
        keys, items: sorted.
        edges: that are joined already.
        most: items before it in its run that an item is paired with.
    """
    numbers, rows = np.unique(items, return_inverse=True)
    links = Links(0, len(numbers))
    links.add(np.searchsorted(numbers, edges))
    tops = links.tops(np.arange(len(numbers)))[rows]
    begins = np.searchsorted(keys, keys)
    found = [np.zeros((0, 2), np.int64)]
    later = np.arange(len(keys))
    for back in range(1, most + 1):
        later = later[later - back > begins[later]]
        if not len(later):
            break
        apart = later[tops[later] != tops[later - back]]
        found.append(np.stack([items[apart], items[apart - back]], axis=1))
    return np.concatenate(found)


def _stir(edges: I64) -> I64:
    """A random number below 2^53 of each edge, which does not depend on the others."""
    numbers = edges.astype(np.uint64)
    stirred = numbers[:, 0] * np.uint64(0x9E3779B97F4A7C15) + numbers[:, 1]
    stirred = (stirred ^ (stirred >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return (stirred >> np.uint64(11)).astype(np.int64)


def _look_at(
    prints: Fingerprints, edges: I64, times: I64, rules: MatchRules
) -> tuple[list[float], list[list[float]]]:
    """The shared keys by similarity, and examples, of a sample of the edges."""
    if not len(edges):
        return [0.0] * BINS, []
    stirred = _stir(edges)
    chosen = np.argsort(stirred, kind="stable")[:SAMPLED]
    numbers, rows = np.unique(edges[chosen], return_inverse=True)
    pairs = rows.reshape(-1, 2).astype(np.int64)
    near = nearness(prints.signatures(numbers), pairs, measure=prints.settings.measure)
    shared = [0.0] * BINS
    if prints.settings.method == "minhash":
        counted = np.bincount(bin_of(near), weights=times[chosen], minlength=BINS)
        shared = (counted * (times.sum() / times[chosen].sum())).tolist()
    shown = [
        [int(stirred[edge]), *map(int, edges[edge]), float(near[place])]
        for place, edge in enumerate(chosen[: rules.examples])
    ]
    return shared, shown
