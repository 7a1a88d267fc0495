"""Near duplicates in one pass over the keys, in fixed memory: LSHBloom.

A document goes when one of its keys seems to have been seen in an earlier one. Nobody remembers
which, so nothing is known of clusters, and all but the first of a chain of copies go. Every key of
every document is added, also of those that go.

A Bloom filter errs: with `rate` false positives a document, that share of the documents that are no
copies goes too, once as many documents were seen as it was sized for (less before). The paper has a
filter a band; here the keys of all bands are told apart by their hash, and cut by ranges of it
into any number of filters, with as many bits and the same errors.

Source: Khan et al. 2024, LSHBloom, arXiv:2411.04257.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megatron_jobs._copies import Bloom
from megatron_jobs.runtime.files import whole_file
from megatron_jobs.text.copies.arrays import I64, Bools
from megatron_jobs.text.copies.removals import Removal
from megatron_jobs.text.copies.store import Fingerprints


def key_rate(rate: float, keys: int) -> float:
    """False positives a key may have, so that a document of `keys` keys has `rate`."""
    return float(-np.expm1(np.log1p(-rate) / keys))


def most_keys(keys: int, ranges: int) -> int:
    """As many as one of some equal ranges holds of evenly spread keys, but one time in 700."""
    mean = keys / ranges
    return max(1, math.ceil(mean + (3 * math.sqrt(mean) if ranges > 1 else 0)))


@dataclass(frozen=True)
class FilterSize:
    """Of a Bloom filter."""

    keys: int
    """That it may hold."""
    rate: float
    """False positives when it does."""

    @property
    def bytes(self) -> float:
        """Memory that it takes: -n ln p / (ln 2)^2 bits (Bloom 1970)."""
        return -self.keys * math.log(self.rate) / math.log(2) ** 2 / 8

    def make(self) -> Bloom:
        """An empty one."""
        return Bloom(self.keys, self.rate)


def seen_before(prints: Fingerprints, number: int, *, of: int, bloom: Bloom) -> Iterator[I64]:
    """Of each unit in turn, the items that have a key of this range that seemed to be known."""
    low, high = 2**64 * number // of, 2**64 * (number + 1) // of
    for unit in range(len(prints.units)):
        keys, items = prints.keys_of(unit, low, high)
        again = np.zeros(len(keys), np.bool_)  # shared in the unit: certain, not by the filter
        again[1:] = (keys[1:] == keys[:-1]) & (items[1:] != items[:-1])
        first = np.ones(len(keys), np.bool_)
        first[1:] = keys[1:] != keys[:-1]
        known = _spread(bloom.add(keys[first]), first)
        yield np.unique(items[again | known])


def _spread(of_first: Bools, first: Bools) -> Bools:
    """What holds of the first of each run, for all of it."""
    return of_first[np.cumsum(first) - 1] if len(first) else of_first


def write_seen(prints: Fingerprints, path: Path, number: int, *, of: int, size: FilterSize) -> int:
    """Write the numbers of the items that a range of the keys removes, rising; how many."""
    bloom = size.make()
    found = [
        items + prints.bases[unit]
        for unit, items in enumerate(seen_before(prints, number, of=of, bloom=bloom))
    ]
    numbers = np.concatenate([np.zeros(0, np.int64), *found])
    with whole_file(path) as part, part.open("wb") as file:
        np.save(file, numbers)
    return len(numbers)


def removals_of(prints: Fingerprints, parts: list[Path], unit: int) -> Iterator[Removal]:
    """What all ranges together remove of a unit."""
    low, high = int(prints.bases[unit]), int(prints.bases[unit + 1])
    found = [np.zeros(0, np.int64)]
    for part in parts:
        numbers = np.load(part, mmap_mode="r")
        first, last = np.searchsorted(numbers, [low, high])
        found.append(np.asarray(numbers[first:last]))
    return (Removal(row) for row in (np.unique(np.concatenate(found)) - low).tolist())
