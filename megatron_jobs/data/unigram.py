"""The model that knows only how often each token occurs: the least a trained one must beat."""

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.data.sample_index import SplitSamples
from megatron_jobs.data.source_order import PADDING

MOST_SAMPLES = 1 << 17
"""As many are counted; samples are in shuffled order, so the first are a fair choice."""


def counted_targets(
    samples: SplitSamples, first: int = 0, last: int | None = None
) -> NDArray[np.int64]:
    """Every target of some samples of a split, in their order."""
    end = len(samples) if last is None else min(last, len(samples))
    targets = [_targets(samples, number) for number in range(first, end)]
    joined: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *targets])
    return joined


def _targets(samples: SplitSamples, number: int) -> NDArray[np.int64]:
    row = samples[number]
    if not samples.packed:
        return row[1:]
    pieces = samples.pieces(number)
    counted = (pieces[1:] == pieces[:-1]) & (pieces[1:] != PADDING)
    targets: NDArray[np.int64] = row[1:][counted]
    return targets


def token_counts(samples: SplitSamples, vocab_size: int, *, chunk: int = 256) -> NDArray[np.int64]:
    """How often each id is a target [vocab_size], in at most MOST_SAMPLES samples of a split."""
    counts = np.zeros(vocab_size, np.int64)
    for first in range(0, min(len(samples), MOST_SAMPLES), chunk):
        counts += np.bincount(counted_targets(samples, first, first + chunk), minlength=vocab_size)
    return counts


def unigram_loss(counts: NDArray[np.int64], targets: NDArray[np.int64]) -> float:
    """Mean negative log probability of targets, in nats, each token once more than it was counted.

    Source: add-one smoothing; Jurafsky and Martin, Speech and Language Processing, section 3.6.1.
    """
    probabilities = (counts + 1) / (counts.sum() + len(counts))
    return float(-np.log(probabilities[targets]).mean())
