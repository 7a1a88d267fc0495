"""Orders of samples from easy to hard.

A concatenated order lays the documents of each epoch end to end from the easiest to the hardest, so
that a sample holds documents of like difficulty; a packed bin is as hard as its tokens are on
average. Of each epoch's samples, ranked, the next one is drawn among those in reach of the
competence. All is in arrays of 8 bytes a sample (16 while building), the same for every rank.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._data import Shuffler, sample_starts
from megatron_jobs._pack import draw_paced
from megatron_jobs.config.curriculum import Curriculum
from megatron_jobs.data.packing import PackedOrder
from megatron_jobs.data.source_order import Epochs, SourceOrder, count_tokens
from megatron_jobs.data.splits import INT32_MAX
from megatron_jobs.data.token_file import TokenFile

EPOCH_SEEDS = 1 << 32
"""Between the seeds of two epochs."""


def competence(pacing: Curriculum, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of the samples in reach, when `shares` of the curriculum are over.

    Source: Platanios et al. 2019, eq. 5 (linear) and 7 (root, p = 2), arXiv:1903.09848.
    """
    if pacing.pacing == "linear":
        return np.minimum(1.0, pacing.start + (1 - pacing.start) * shares)
    start = pacing.start * pacing.start
    grown: NDArray[np.float64] = np.minimum(1.0, np.sqrt(start + (1 - start) * shares))
    return grown


def draw_epochs(
    ranked: Sequence[NDArray[np.int64]], pacing: Curriculum, *, samples: int | None, seed: int
) -> NDArray[np.int64]:
    """All samples of all epochs in the order in which they come.

    Args:
        ranked: the samples of each epoch, from easy to hard.
        samples: of the whole run, by which it is paced; None for all there are.
    """
    total = sum(map(len, ranked)) if samples is None else samples
    drawn: list[NDArray[np.int64]] = []
    passed = 0
    for epoch, values in enumerate(ranked):
        times = np.arange(passed, passed + len(values))
        reach = competence(pacing, times / (max(total, 1) * pacing.until))
        order = values.copy()
        horizons = np.ceil(reach * len(values)).astype(np.int64)
        draw_paced(order, horizons, seed=seed + EPOCH_SEEDS * epoch)
        drawn.append(order)
        passed += len(values)
    return np.concatenate([np.empty(0, np.int64), *drawn])


def pace_packed(
    order: PackedOrder,
    documents: range,
    scores: NDArray[np.float64],
    pacing: Curriculum,
    *,
    samples: int | None,
    seed: int,
) -> PackedOrder:
    """A packed order with its bins drawn by difficulty; as many epochs as it has.

    Args:
        documents: what was packed.
        scores: [documents].
        samples: of the whole run; None for all that the order has.
    """
    bins = len(order.first) - 1
    scores = -scores if pacing.descending else scores
    weights = scores[order.documents - documents.start] * order.lengths
    tokens = np.add.reduceat(order.lengths, order.first[:-1], dtype=np.int64)
    means = np.add.reduceat(weights, order.first[:-1]) / tokens
    ranked = np.argsort(means, kind="stable")
    epochs = [ranked] * (len(order) // bins)
    return replace(order, shuffle=draw_epochs(epochs, pacing, samples=samples, seed=seed))


def build_paced_order(
    tokens: TokenFile,
    documents: range,
    scores: NDArray[np.float64],
    pacing: Curriculum,
    *,
    samples: int | None,
    seq_len: int,
    seed: int,
) -> tuple[SourceOrder, int]:
    """A concatenated order by difficulty, of at least `samples` samples, and its epochs.

    Args:
        scores: [documents]; equally hard ones are shuffled, in each epoch anew.
    """
    lengths = np.array(tokens.lengths)
    scores = -scores if pacing.descending else scores
    epoch_tokens = count_tokens(tokens.prefix, lengths, documents)
    count = Epochs.needed(samples, epoch_tokens, seq_len).count
    shuffler = Shuffler(seed)
    order = np.concatenate([_from_easy_to_hard(shuffler, scores) for _ in range(count)])
    order += np.int32(documents.start)
    starts = sample_starts(
        lengths,
        order,
        seq_len=seq_len,
        wide=len(order) > INT32_MAX,
        threads=len(os.sched_getaffinity(0)),
    )
    rows = len(starts) - 1
    firsts = [min(rows, -(-epoch * epoch_tokens // seq_len)) for epoch in range(count)]
    ranked = [np.arange(a, b) for a, b in zip(firsts, [*firsts[1:], rows], strict=True)]
    shuffle = draw_epochs(ranked, pacing, samples=samples, seed=seed)
    return SourceOrder(order, starts, shuffle), count


def _from_easy_to_hard(shuffler: Shuffler, scores: NDArray[np.float64]) -> NDArray[np.int32]:
    order = np.arange(len(scores), dtype=np.int32)
    shuffler.shuffle(order)
    ranked: NDArray[np.int32] = order[np.argsort(scores[order], kind="stable")]
    return ranked
