"""Which samples a data rank reads at a step, and the arrays it trains on.

B is the samples of a micro batch, S the tokens of a sample (seq_len).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.data.sample_index import SplitSamples
from megatron_jobs.data.source_order import PADDING

NO_SAMPLE = -1
"""Stands in a micro batch for a sample beyond the last one: all padding."""


@dataclass(frozen=True)
class SampleCursor:
    """Sample numbers of each step, a pure function of the step: nothing to save, nothing to seek.

    Step t of the whole job reads samples [t * global_size, (t + 1) * global_size), however many
    data ranks share them. Each micro batch of all data ranks together is a contiguous run, as in
    Megatron-LM's sampler.
    """

    global_size: int
    """Samples of a step, over all data ranks."""
    micro_size: int
    """Samples of a micro batch on one data rank."""
    data_ranks: int
    total: int | None = None
    """Samples there are; numbers from it on become NO_SAMPLE. None for no end."""

    @property
    def micro_batches(self) -> int:
        """Micro batches of a step on each data rank."""
        return self.global_size // (self.micro_size * self.data_ranks)

    def samples(self, step: int, data_rank: int) -> list[list[int]]:
        """Sample numbers [micro batches][B] that `data_rank` reads at `step`, both from 0."""
        unit = self.micro_size * self.data_ranks
        assert self.global_size % unit == 0, f"{self.global_size} samples in units of {unit}"
        assert 0 <= data_rank < self.data_ranks, f"data rank {data_rank} of {self.data_ranks}"
        first = step * self.global_size + data_rank * self.micro_size
        starts = range(first, first + self.micro_batches * unit, unit)
        return [list(self._run(start)) for start in starts]

    def _run(self, start: int) -> Iterator[int]:
        for number in range(start, start + self.micro_size):
            yield number if self.total is None or number < self.total else NO_SAMPLE


def read_batch(
    split: SplitSamples, numbers: Sequence[int], *, mask_after: int | None = None
) -> dict[str, NDArray[np.int64] | NDArray[np.float32]]:
    """The arrays of one micro batch.

    Args:
        numbers: [B] sample numbers, or NO_SAMPLE for a row that counts for nothing.
        mask_after: the end-of-document id, to leave out the targets that follow one: the first
            token of the next document (Megatron-LM's --eod-mask-loss).
    Returns: tokens and labels, int64 [B, S], 0 where there is none; loss_mask, float32 [B, S],
        1 where a target counts; positions, int64 [B, S].
    """
    rows = np.full((len(numbers), split.seq_len + 1), PADDING, np.int64)
    for row, number in zip(rows, numbers, strict=True):
        if number != NO_SAMPLE:
            row[:] = split[number]
    tokens_BS, labels_BS = rows[:, :-1].copy(), rows[:, 1:].copy()
    loss_mask_BS = (labels_BS != PADDING).astype(np.float32)
    if mask_after is not None:
        loss_mask_BS[tokens_BS == mask_after] = 0
    tokens_BS[tokens_BS == PADDING] = 0
    labels_BS[labels_BS == PADDING] = 0
    positions_BS = np.tile(np.arange(split.seq_len, dtype=np.int64), (len(numbers), 1))
    return {
        "tokens": tokens_BS,
        "labels": labels_BS,
        "loss_mask": loss_mask_BS,
        "positions": positions_BS,
    }
