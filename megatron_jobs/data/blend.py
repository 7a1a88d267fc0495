"""How many samples each source of a blend gives, and which sample comes from which source.

Equal to megatron-core's BlendedMegatronDatasetBuilder and BlendedDataset, without their arrays: a
blend is a rule that says which source is next from what was taken of each so far. Kept are those
counts before every BLEND_BLOCK samples, so that any sample is a short walk away: 8 bytes a source
for 16,384 samples, where the arrays take 10 a sample.
"""

import os
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._data import BLEND_BLOCK, blend_counts, blend_part
from megatron_jobs.errors import DataError

SURPLUS = 0.005
"""Samples built beyond those planned for a source, as a share of them."""


def normalize(weights: Sequence[float]) -> list[float]:
    """Weights adding up to 1."""
    values = np.array(weights, dtype=np.float64)
    shares: list[float] = (values / values.sum()).tolist()
    return shares


def planned_samples(weight: float, samples: int, surplus: float = 0.0) -> int:
    """Samples that a source of normalized `weight` gives to a blend of `samples`."""
    return ceil(ceil(samples * weight) * (1 + surplus))


class Blend:
    """Which source each sample comes from, and which of that source's samples it is.

    Args:
        weights: float64 [sources], adding up to 1.
        limits: int64 [sources], after how many samples each source is spent; None for never.
        counts: int64 [blocks + 1, sources], of `blend_counts`: samples of each source before each
            BLEND_BLOCK samples, and in all.
    """

    def __init__(
        self,
        weights: NDArray[np.float64],
        limits: NDArray[np.int64] | None,
        counts: NDArray[np.int64],
    ) -> None:
        self.weights = weights
        self.limits = limits
        self.counts = counts
        self._size = int(counts[-1].sum())
        self._block = (-1, np.empty(0, np.int16), np.empty(0, np.int64))

    @classmethod
    def by_weights(cls, weights: Sequence[float], samples: int) -> Self:
        """A blend of at least `samples` samples in proportion to weights, without an end.

        How many each source gives in all is `taken(len(blend))`.
        """
        shares = normalize(weights)
        size = sum(planned_samples(share, samples) for share in shares)
        # megatron-core normalizes once to plan and once more to walk: the last bits decide ties
        return cls._walk(normalize(shares), size, None)

    @classmethod
    def by_size(cls, lengths: Sequence[int], samples: int | None) -> Self:
        """A blend of sources that have `lengths` samples, in proportion to those; each but once.

        Args:
            samples: at most as many as there are; None for all.
        """
        size = sum(lengths) if samples is None else samples
        assert size <= sum(lengths), f"{size} samples of {sum(lengths)}"
        # a source is next only when it has given no more than its share, so never more than it has;
        # of all samples megatron-core makes sure all the same
        limits = np.array(lengths, np.int64) if samples is None else None
        return cls._walk(normalize(lengths), size, limits)

    @classmethod
    def _walk(cls, shares: Sequence[float], size: int, limits: NDArray[np.int64] | None) -> Self:
        weights, threads = np.array(shares), len(os.sched_getaffinity(0))
        counts = blend_counts(weights, size=size, limits=limits, threads=threads)
        return cls(weights, limits, counts)

    def __len__(self) -> int:
        """Samples."""
        return self._size

    def __getitem__(self, sample: int) -> tuple[int, int]:
        """(source, which of its samples) of a sample; those that follow it come at once."""
        block, place = divmod(sample, BLEND_BLOCK)
        if self._block[0] != block:
            self._block = (block, *self._part(block, BLEND_BLOCK))
        _, source, number = self._block
        return int(source[place]), int(number[place])

    def find(self, source: int, numbers: Sequence[int]) -> list[int]:
        """The samples that are those of a source, in the order given; others are left out."""
        found = []
        before, last, places = self.counts[:, source], -1, np.empty(0, np.int64)
        for number in numbers:
            block = int(np.searchsorted(before, number, side="right")) - 1
            if block == len(self.counts) - 1:  # never given
                continue
            if block != last:  # numbers that rise need each block once
                last, places = block, np.flatnonzero(self._part(block, BLEND_BLOCK)[0] == source)
            found.append(block * BLEND_BLOCK + int(places[number - int(before[block])]))
        return found

    def taken(self, samples: int) -> list[int]:
        """How many of the first `samples` each source gives."""
        block = min(samples // BLEND_BLOCK, len(self.counts) - 2)
        if block < 0 or samples == self._size:
            return [int(count) for count in self.counts[-1]]
        source, _ = self._part(block, samples - block * BLEND_BLOCK)
        counts: list[int] = (
            self.counts[block] + np.bincount(source, minlength=len(self.weights))
        ).tolist()
        return counts

    def _part(self, block: int, most: int) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        """Source and number of up to `most` samples from the start of a block on."""
        first = block * BLEND_BLOCK
        return blend_part(
            self.weights,
            np.ascontiguousarray(self.counts[block], np.int64),
            first=first,
            size=min(most, self._size - first),
            limits=self.limits,
        )

    def save(self, folder: Path, name: str) -> dict[str, Any]:
        """Write NAME-counts.npy; returns the rest, for a JSON file."""
        np.save(folder / f"{name}-counts.npy", self.counts)
        limits = None if self.limits is None else self.limits.tolist()
        return {"weights": self.weights.tolist(), "limits": limits}

    @classmethod
    def load(cls, folder: Path, name: str, rest: dict[str, Any]) -> Self:
        """What `save` wrote and returned."""
        path = folder / f"{name}-counts.npy"
        counts = np.asarray(np.load(path, mmap_mode="r"))
        weights = np.array(rest["weights"], np.float64)
        if counts.ndim != 2 or counts.shape[1] != len(weights):
            found = f"an array of {counts.shape}, index.json tells of {len(weights)} sources"
            raise DataError(f"{path}: found {found}; build it again")
        limits = None if rest["limits"] is None else np.array(rest["limits"], np.int64)
        return cls(weights, limits, counts)
