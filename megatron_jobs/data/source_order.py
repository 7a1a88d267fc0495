"""In which order one token file is read: documents, then samples, each shuffled.

Equal, to the bit, to what megatron-core's GPTDataset builds: documents are repeated as many epochs
as are needed, shuffled, laid end to end and cut every `seq_len` tokens; then the samples are
shuffled. When less than 0.8 of the last epoch is needed, that epoch is shuffled apart, so that no
document is seen once more often than others too early.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._data import Shuffler, sample_starts
from megatron_jobs.data.splits import INT32_MAX
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import UserError

LAST_EPOCH_SHARE = 0.80
PADDING = -1
"""Stands for a token where a row of a micro batch has none."""


@dataclass(frozen=True, eq=False)
class SourceOrder:
    """The three arrays that say which tokens a sample is made of."""

    documents: NDArray[np.int32]
    """[visits], the document at each place."""
    starts: NDArray[Any]
    """[samples + 1, 2], (place, offset in that document) of each sample, int32 or int64."""
    shuffle: NDArray[Any]
    """[samples], which of them comes when; uint32 or int64."""

    def __len__(self) -> int:
        """Samples."""
        return len(self.shuffle)

    def save(self, folder: Path, name: str) -> None:
        """Write NAME-documents.npy, NAME-starts.npy and NAME-shuffle.npy."""
        for part in ("documents", "starts", "shuffle"):
            np.save(folder / f"{name}-{part}.npy", getattr(self, part))

    @classmethod
    def load(cls, folder: Path, name: str) -> Self:
        """Map the arrays that `save` wrote."""
        return cls(
            **{
                part: np.asarray(np.load(folder / f"{name}-{part}.npy", mmap_mode="r"))
                for part in ("documents", "starts", "shuffle")
            }
        )

    def read(self, tokens: TokenFile, sample: int, seq_len: int) -> NDArray[np.int64]:
        """Tokens [seq_len + 1] of a sample, int64."""
        row = int(self.shuffle[sample])
        (first, offset), (last, end) = self.starts[row].tolist(), self.starts[row + 1].tolist()
        result = np.empty(seq_len + 1, np.int64)
        filled = 0
        for place in range(first, last + 1):
            start = offset if place == first else 0
            count = end + 1 - start if place == last else None
            piece = tokens.read(int(self.documents[place]), start, count)
            result[filled : filled + len(piece)] = piece
            filled += len(piece)
        assert filled == len(result), f"sample {sample} has {filled} of {len(result)} tokens"
        return result


@dataclass(frozen=True)
class Epochs:
    """How often a range of documents is gone through for the samples that are wanted."""

    count: int
    whole_samples: int
    """Samples of all epochs but the last."""
    last_apart: bool

    @classmethod
    def needed(cls, samples: int | None, epoch_tokens: int, seq_len: int) -> Self:
        """Enough for `samples` samples of seq_len + 1 overlapping tokens; one epoch for None."""
        wanted = 0 if samples is None else samples * seq_len + 1
        count = max(1, -(-wanted // epoch_tokens))
        if count == 1 or samples is None:
            return cls(1, 0, False)
        whole = ((count - 1) * epoch_tokens - 1) // seq_len
        epoch_samples = (epoch_tokens - 1) // seq_len
        return cls(count, whole, samples - whole < int(LAST_EPOCH_SHARE * epoch_samples))


def build_order(
    tokens: TokenFile,
    documents: range,
    *,
    samples: int | None,
    seq_len: int,
    seed: int,
    threads: int = 0,
) -> tuple[SourceOrder, int]:
    """The order of at least `samples` samples of some documents, and its number of epochs.

    Args:
        documents: which of the file's sequences, a range of their numbers.
        samples: None for what one epoch gives.
        threads: 0 for as many as this process has cores.
    Raises: UserError when the documents hold no token.
    """
    lengths = np.array(tokens.lengths)  # aligned and in memory: the .idx is neither
    count_tokens(tokens.prefix, lengths, documents)
    return order_of(
        lengths, documents, samples=samples, seq_len=seq_len, seed=seed, threads=threads
    )


def order_of(
    lengths: NDArray[np.int32],
    documents: range,
    *,
    samples: int | None,
    seq_len: int,
    seed: int,
    threads: int = 0,
) -> tuple[SourceOrder, int]:
    """`build_order` of documents whose lengths [documents of the file], in tokens, are known."""
    epochs = Epochs.needed(samples, _tokens_of(lengths, documents), seq_len)
    shuffler = Shuffler(seed)
    order = _shuffled_documents(shuffler, documents, epochs)
    starts = _starts(lengths, order, seq_len, threads)
    shuffle = _shuffled_samples(shuffler, len(starts) - 1, epochs)
    return SourceOrder(order, starts, shuffle), epochs.count


def order_of_some(
    lengths: NDArray[np.int32], numbers: NDArray[np.int32], shuffler: Shuffler, *, seq_len: int
) -> SourceOrder:
    """One pass over some documents of a file, by their numbers."""
    visits = numbers.copy()
    shuffler.shuffle(visits)
    starts = _starts(lengths, visits, seq_len)
    rows = np.arange(len(starts) - 1, dtype=_sample_dtype(len(starts) - 1))
    shuffler.shuffle(rows)
    return SourceOrder(visits, starts, rows)


def extend_order(
    order: SourceOrder,
    lengths: NDArray[np.int32],
    documents: range,
    shuffler: Shuffler,
    *,
    more: int,
    seq_len: int,
) -> SourceOrder:
    """`order` and at least `more` samples behind it, of further epochs of the same documents.

    Each epoch is shuffled on its own, documents and then samples. The stream of tokens goes on: the
    first new sample begins where the last old one ended.
    """
    rows = len(order.starts) - 1
    epoch_tokens = _tokens_of(lengths, documents)
    held = int(lengths[order.documents].sum(dtype=np.int64))
    epochs = -(-((rows + more) * seq_len + 1 - held) // epoch_tokens)
    again = [np.arange(documents.start, documents.stop, dtype=np.int32) for _ in range(epochs)]
    for epoch in again:
        shuffler.shuffle(epoch)
    visits = np.concatenate([order.documents, *again])
    ends = [(held + epoch * epoch_tokens - 1) // seq_len for epoch in range(1, epochs + 1)]
    dtype = _sample_dtype(ends[-1])
    fresh = [np.arange(a, b, dtype=dtype) for a, b in zip([rows, *ends], ends, strict=False)]
    for part in fresh:
        shuffler.shuffle(part)
    shuffle = np.concatenate([order.shuffle.astype(dtype), *fresh])
    return SourceOrder(visits, _starts(lengths, visits, seq_len), shuffle)


def count_tokens(prefix: Path, lengths: NDArray[np.int32], documents: range) -> int:
    """The tokens of some documents of a file; UserError when there is none to sample from."""
    tokens = _tokens_of(lengths, documents)
    if tokens == 0:
        found = f"{len(documents)} documents without a token"
        raise UserError(f"{prefix}: found {found}, needs at least one token to sample from")
    if documents.stop > INT32_MAX:
        raise UserError(f"{prefix}: found {documents.stop} documents, at most {INT32_MAX}")
    return tokens


def _tokens_of(lengths: NDArray[np.int32], documents: range) -> int:
    return int(lengths[documents.start : documents.stop].sum(dtype=np.int64))


def _starts(
    lengths: NDArray[np.int32], order: NDArray[np.int32], seq_len: int, threads: int = 0
) -> NDArray[Any]:
    threads = threads or len(os.sched_getaffinity(0))
    wide = len(order) > INT32_MAX
    return sample_starts(lengths, order, seq_len=seq_len, wide=wide, threads=threads)


def _shuffled_documents(shuffler: Shuffler, documents: range, epochs: Epochs) -> NDArray[np.int32]:
    once = np.arange(documents.start, documents.stop, dtype=np.int32)
    order = once if epochs.count == 1 else np.tile(once, epochs.count)
    whole = len(order) - len(once) if epochs.last_apart else len(order)
    shuffler.shuffle(order[:whole])
    if epochs.last_apart:
        shuffler.shuffle(order[whole:])
    return order


def _shuffled_samples(shuffler: Shuffler, samples: int, epochs: Epochs) -> NDArray[Any]:
    order = np.arange(samples, dtype=_sample_dtype(samples))
    whole = epochs.whole_samples if epochs.last_apart else samples
    shuffler.shuffle(order[:whole])
    if whole < samples:
        shuffler.shuffle(order[whole:])
    return order


def _sample_dtype(samples: int) -> type[np.uint32 | np.int64]:
    """As megatron-core's."""
    return np.int64 if samples >= np.iinfo(np.uint32).max - 1 else np.uint32
