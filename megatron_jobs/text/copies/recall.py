"""How many of the copies that are there MinHash will have found, from those that it has.

Two documents of Jaccard similarity s share the key of a band with probability s^r, and at least one
of b keys with 1 - (1 - s^r)^b. Of all pairs of similarity s, b s^r keys are shared a pair: the keys
seen to be shared, divided by that, estimate how many pairs there are, seen or not.

Source: Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.2; Horvitz and
Thompson 1952.
"""

import numpy as np
from numpy.typing import NDArray

BINS = 100
"""Of similarity: bin i holds [i / BINS, (i + 1) / BINS); 1 is in the last one."""


def bin_of(similarity: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bins of some similarities."""
    return np.minimum((similarity * BINS).astype(np.int64), BINS - 1)


def chance(similarity: NDArray[np.float64], *, bands: int, rows: int) -> NDArray[np.float64]:
    """That a pair becomes a candidate: 1 - (1 - s^rows)^bands."""
    found: NDArray[np.float64] = 1 - (1 - similarity**rows) ** bands
    return found


def estimated_recall(
    shared: NDArray[np.float64], *, bands: int, rows: int, least: float
) -> float | None:
    """Of the pairs at least as similar as `least`, the share that became candidates.

    Args:
        shared: [BINS], keys seen to be shared by pairs of each similarity.
    Returns: None when there are none.
    """
    middle = (np.arange(BINS) + 0.5) / BINS
    middle[-1] = 1.0  # what is a copy to the letter is most of the last bin
    chosen = middle >= least
    pairs = shared[chosen] / (bands * middle[chosen] ** rows)
    if not pairs.sum():
        return None
    found = pairs * chance(middle[chosen], bands=bands, rows=rows)
    return float(found.sum() / pairs.sum())
