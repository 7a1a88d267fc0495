"""Packed samples: whole documents side by side, padding at the end, as few cut as can be.

A sample has seq_len + 1 tokens, as in the concatenated form, and is made of pieces: (document,
offset, length). A piece trains on its own tokens only: its last token is a target, and has none.
A document of more than seq_len + 1 tokens is cut into pieces that overlap by that one token, so
that every token of a document but its first is a target, once an epoch. Documents of one token
have no target and are left out. All epochs have the same bins, each in an order of its own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._data import Shuffler
from megatron_jobs._pack import best_fit
from megatron_jobs.data.source_order import PADDING
from megatron_jobs.data.splits import INT32_MAX
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import UserError

PARTS = ("documents", "offsets", "lengths", "first", "shuffle")


@dataclass(frozen=True, eq=False)
class PackedOrder:
    """Which pieces a sample is made of: 12 bytes a piece, 8 a bin, 4 a sample."""

    documents: NDArray[np.int32]
    """[pieces], bin after bin."""
    offsets: NDArray[np.int32]
    """[pieces], where each starts in its document, in tokens."""
    lengths: NDArray[np.int32]
    """[pieces], tokens of each: 2 or more."""
    first: NDArray[np.int64]
    """[bins + 1], the first piece of each bin, and the end."""
    shuffle: NDArray[Any]
    """[samples], which bin comes when; int32 or int64."""

    def __len__(self) -> int:
        """Samples."""
        return len(self.shuffle)

    def save(self, folder: Path, name: str) -> None:
        """Write NAME-documents.npy, NAME-offsets.npy and so on."""
        for part in PARTS:
            np.save(folder / f"{name}-{part}.npy", getattr(self, part))

    @classmethod
    def load(cls, folder: Path, name: str) -> Self:
        """Map the arrays that `save` wrote."""
        paths = {part: folder / f"{name}-{part}.npy" for part in PARTS}
        return cls(**{n: np.asarray(np.load(path, mmap_mode="r")) for n, path in paths.items()})

    def pieces(self, sample: int) -> slice:
        """Where the pieces of a sample lie in `documents`, `offsets` and `lengths`."""
        place = int(self.shuffle[sample])
        return slice(int(self.first[place]), int(self.first[place + 1]))

    def read(self, tokens: TokenFile, sample: int, seq_len: int) -> NDArray[np.int64]:
        """Tokens [seq_len + 1] of a sample, int64; PADDING after the last piece."""
        result = np.full(seq_len + 1, PADDING, np.int64)
        filled = 0
        pieces = self.pieces(sample)
        for place in range(pieces.start, pieces.stop):
            count = int(self.lengths[place])
            piece = tokens.read(int(self.documents[place]), int(self.offsets[place]), count)
            result[filled : filled + count] = piece
            filled += count
        return result

    def numbers(self, sample: int, seq_len: int) -> NDArray[np.int32]:
        """Which piece of the sample each token is of, from 0 on: [seq_len + 1]; PADDING after."""
        lengths = self.lengths[self.pieces(sample)]
        result = np.full(seq_len + 1, PADDING, np.int32)
        result[: lengths.sum()] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        return result


@dataclass(frozen=True)
class PackingFacts:
    """How well the documents went into the bins."""

    documents: int
    """All; those of one token and of none among them."""
    left_out: int
    """Documents of one token or none: without a target."""
    cut: int
    """Documents longer than a sample."""
    bins: int
    padding: float
    """Share of the bins' tokens."""


def build_packed_order(
    tokens: TokenFile,
    documents: range | NDArray[np.int32],
    *,
    samples: int | None,
    seq_len: int,
    seed: int,
) -> tuple[PackedOrder, PackingFacts]:
    """The packed order of at least `samples` samples of some documents.

    Args:
        documents: which of the file's sequences, by their numbers.
        samples: None for one epoch.
        seed: decides which of equally long documents share a bin, and the order of the bins.
    Raises: UserError when no document has a target.
    """
    shuffler = Shuffler(seed)
    order = (
        np.arange(documents.start, documents.stop, dtype=np.int32)
        if isinstance(documents, range)
        else documents.copy()
    )
    shuffler.shuffle(order)
    sizes = np.array(tokens.lengths)[order]
    pieces = cut_documents(order, sizes, seq_len)
    if len(pieces[0]) == 0:
        found = f"{len(documents)} documents, none of more than one token"
        raise UserError(f"{tokens.prefix}: found {found}, needs one with a target")
    places, first = best_fit(pieces[2], capacity=seq_len + 1)
    numbers, offsets, lengths = (part[places] for part in pieces)
    shuffle = shuffled_epochs(shuffler, len(first) - 1, samples)
    held = int(lengths.sum(dtype=np.int64))
    facts = PackingFacts(
        documents=len(order),
        left_out=int((sizes < 2).sum()),
        cut=int((sizes > seq_len + 1).sum()),
        bins=len(first) - 1,
        padding=1 - held / ((len(first) - 1) * (seq_len + 1)),
    )
    return PackedOrder(numbers, offsets, lengths, first, shuffle), facts


def cut_documents(
    order: NDArray[np.int32], sizes: NDArray[np.int32], seq_len: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Pieces of seq_len targets, and what is left of each document, in order.

    Args:
        order: [documents], their numbers.
        sizes: [documents], tokens of each.
    Returns: document, offset and length in tokens of each piece, int32 [pieces].
    """
    targets = np.maximum(sizes - 1, 0)
    counts = -(-targets.astype(np.int64) // seq_len)
    ends = np.cumsum(counts)
    if len(ends) and ends[-1] > INT32_MAX:
        raise UserError(f"seq_len: {seq_len} cuts documents into {ends[-1]} pieces; take it longer")
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
    offsets = (within * seq_len).astype(np.int32)
    lengths = np.minimum(np.repeat(targets, counts) - offsets, seq_len).astype(np.int32) + 1
    return np.repeat(order, counts), offsets, lengths


def join_packed(one: PackedOrder, other: PackedOrder) -> PackedOrder:
    """The samples of one order, then those of the other, of the same token file."""
    bins = len(one.first) - 1
    return PackedOrder(
        np.concatenate([one.documents, other.documents]),
        np.concatenate([one.offsets, other.offsets]),
        np.concatenate([one.lengths, other.lengths]),
        np.concatenate([one.first, other.first[1:] + one.first[-1]]),
        np.concatenate([one.shuffle, other.shuffle + bins]),
    )


def shuffled_epochs(shuffler: Shuffler, bins: int, samples: int | None) -> NDArray[np.int32]:
    """Bins 0 to `bins`, shuffled, again and again until there are `samples`, or once."""
    epochs = max(1, -(-(samples or 0) // bins))
    order = np.tile(np.arange(bins, dtype=np.int32), epochs)
    for epoch in range(epochs):
        shuffler.shuffle(order[epoch * bins : (epoch + 1) * bins])
    return order
