"""The model that knows only how often each token occurs: the least a trained one must beat."""

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.data.sample_index import SplitSamples
from megatron_jobs.data.source_order import PADDING


def counted_targets(samples: SplitSamples) -> NDArray[np.int64]:
    """Every target of a split, in the order of its samples; padding left out."""
    targets = [samples[number][1:] for number in range(len(samples))]
    joined: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *targets])
    kept: NDArray[np.int64] = joined[joined != PADDING]
    return kept


def token_counts(targets: NDArray[np.int64], vocab_size: int) -> NDArray[np.int64]:
    """How often each id occurs [vocab_size]."""
    counts: NDArray[np.int64] = np.bincount(targets, minlength=vocab_size)
    return counts


def unigram_loss(counts: NDArray[np.int64], targets: NDArray[np.int64]) -> float:
    """Mean negative log probability of targets, in nats, each token once more than it was counted.

    Source: add-one smoothing; Jurafsky and Martin, Speech and Language Processing, section 3.6.1.
    """
    probabilities = (counts + 1) / (counts.sum() + len(counts))
    return float(-np.log(probabilities[targets]).mean())
