"""How many samples each source of a blend gives, and which sample comes from which source.

Equal to megatron-core's BlendedMegatronDatasetBuilder and BlendedDataset.
"""

import os
from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._data import blend, blend_all
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


def blend_samples(
    lengths: Sequence[int], weights: Sequence[float] | None, samples: int | None
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """The source of each sample of a blend, and which of that source's samples it is.

    Args:
        lengths: samples that each source has.
        weights: None for each source in proportion to its length.
        samples: wanted; a little more come with weights.
            None, without weights only, for every sample of every source, once.
    Returns: int16 [samples], int64 [samples].
    Raises: DataError when more is asked of a source than it has.
    """
    if samples is None:
        assert weights is None, "a blend by weights needs a number of samples"
        return blend_all(np.array(lengths, np.int64))
    shares = normalize(lengths if weights is None else weights)
    planned = [samples] if weights is None else [planned_samples(s, samples) for s in shares]
    source, number = blend(
        np.array(shares), size=sum(planned), threads=len(os.sched_getaffinity(0))
    )
    taken = np.bincount(source, minlength=len(shares))
    for place, (count, length) in enumerate(zip(taken.tolist(), lengths, strict=True)):
        if count > length:
            raise DataError(f"source {place}: {count} samples are asked of it, it has {length}")
    return source, number
