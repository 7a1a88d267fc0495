"""Edges: int64 [n, 2], the numbers of two items, the higher one first."""

import numpy as np

from megatron_jobs._copies import sort_entries
from megatron_jobs.text.copies.arrays import I64


def unique_edges(edges: I64) -> tuple[I64, I64]:
    """Edges sorted, each once, and how often each was there."""
    high, low = edges[:, 0].astype(np.uint64), edges[:, 1].copy()
    sort_entries(high, low)
    new = np.ones(len(low), np.bool_)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    starts = np.flatnonzero(new)
    once = np.stack([high[starts].astype(np.int64), low[starts]], axis=1)
    return once, np.diff(np.append(starts, len(low)))
