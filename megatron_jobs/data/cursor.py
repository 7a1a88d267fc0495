"""Which samples a data rank reads at a step, and the arrays it trains on.

B is the samples of a micro batch, S the tokens of a sample (seq_len).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentEnds:
    """What the end of a document changes inside a sample.

    In a packed sample each piece is a document; in a concatenated one a document ends with `eod`.
    Whatever is chosen, no target of a packed sample is a token of another piece.
    """

    eod: int | None = None
    """The id that ends a document; concatenated samples need it where anything is reset."""
    mask_eod: bool = False
    """Leave out the targets that follow an end of document (Megatron-LM's --eod-mask-loss)."""
    reset_positions: bool = False
    """Count positions from 0 in each document (--reset-position-ids)."""
    reset_attention: bool = False
    """Let no token attend to another document's (--reset-attention-mask)."""


KEEP = DocumentEnds()


def read_batch(
    split: SplitSamples, numbers: Sequence[int], *, ends: DocumentEnds = KEEP
) -> dict[str, NDArray[Any]]:
    """The arrays of one micro batch.

    Args:
        numbers: [B] sample numbers, or NO_SAMPLE for a row that counts for nothing.
        ends: what the ends of documents change.
    Returns: tokens and labels, int64 [B, S], 0 where there is none; loss_mask, float32 [B, S],
        1 where a target counts; positions, int64 [B, S]; with `reset_attention` also documents,
        int32 [B, S]: equal where tokens are of one document.
    """
    rows = np.full((len(numbers), split.seq_len + 1), PADDING, np.int64)
    for row, number in zip(rows, numbers, strict=True):
        if number != NO_SAMPLE:
            row[:] = split[number]
    tokens_BS, labels_BS = rows[:, :-1].copy(), rows[:, 1:].copy()
    loss_mask_BS = (labels_BS != PADDING).astype(np.float32)
    documents = _documents(split, numbers, rows, ends)
    if split.packed:
        loss_mask_BS[documents[:, 1:] != documents[:, :-1]] = 0
    if ends.mask_eod:
        loss_mask_BS[tokens_BS == ends.eod] = 0
    tokens_BS[tokens_BS == PADDING] = 0
    labels_BS[labels_BS == PADDING] = 0
    reset = documents[:, :-1] if ends.reset_positions else np.zeros_like(tokens_BS)
    batch: dict[str, NDArray[Any]] = {
        "tokens": tokens_BS,
        "labels": labels_BS,
        "loss_mask": loss_mask_BS,
        "positions": _positions(reset),
    }
    return batch | ({"documents": documents[:, :-1].copy()} if ends.reset_attention else {})


def _documents(
    split: SplitSamples, numbers: Sequence[int], rows: NDArray[np.int64], ends: DocumentEnds
) -> NDArray[np.int32]:
    """Which document of its row each token is of: [B, S + 1]; PADDING stands apart."""
    documents = np.zeros(rows.shape, np.int32)
    if split.packed:
        for row, number in zip(documents, numbers, strict=True):
            row[:] = split.pieces(number) if number != NO_SAMPLE else PADDING
    elif ends.reset_positions or ends.reset_attention:
        assert ends.eod is not None, "concatenated samples are told apart by their end of document"
        documents[:, 1:] = np.cumsum(rows[:, :-1] == ends.eod, axis=1)
        documents[rows == PADDING] = PADDING
    return documents


def _positions(documents_BS: NDArray[Any]) -> NDArray[np.int64]:
    """Places counted from 0 wherever the document changes: [B, S]."""
    places = np.broadcast_to(np.arange(documents_BS.shape[1]), documents_BS.shape)
    starts = np.zeros_like(places)
    starts[:, 1:] = places[:, 1:] * (documents_BS[:, 1:] != documents_BS[:, :-1])
    positions: NDArray[np.int64] = places - np.maximum.accumulate(starts, axis=1)
    return positions
