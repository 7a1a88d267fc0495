"""Which document stood in which training step, and the other way round.

Nothing is written while a model trains: the samples of a step are a pure function of the index and
the batch size, so what stood where is found afterwards, from the index, the token files and the
names beside them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.data.document_names import DocumentNames
from megatron_jobs.data.packing import PackedOrder
from megatron_jobs.data.sample_index import SampleIndex, SplitSamples
from megatron_jobs.data.source_order import SourceOrder
from megatron_jobs.data.splits import SPLITS, Split

LOOK = 1 << 22
"""Items of an array that are looked through at once."""


@dataclass(frozen=True)
class Passage:
    """A run of tokens of one sequence in one sample."""

    sample: int
    source: int
    sequence: int
    """Its number in the source's token file."""
    start: int
    tokens: int
    """Those of the sequence that the sample holds."""


@dataclass(frozen=True)
class Sighting:
    """A sequence in a sample of a split."""

    split: Split
    source: int
    sequence: int
    sample: int


class Ledger:
    """What an index's samples are made of."""

    def __init__(self, index: SampleIndex) -> None:
        self.index = index
        self.splits = {name: index.split(name) for name in SPLITS}
        self._names: dict[int, DocumentNames] = {}

    def names(self, source: int) -> DocumentNames:
        """The names of a source's documents; DataError when it was tokenized without, or they are
        not those of its documents."""
        if source not in self._names:
            self._names[source] = DocumentNames.of(self.index.tokens[source])
        return self._names[source]

    def name(self, source: int, sequence: int) -> str:
        """The name of the document that a sequence is, or is a sentence of."""
        return self.names(source)[self.document_of(source, sequence)]

    def document_of(self, source: int, sequence: int) -> int:
        """The document that a sequence of a token file is of."""
        starts = self.index.tokens[source].documents
        return int(np.searchsorted(starts, sequence, side="right")) - 1

    def sequences_of(self, source: int, document: int) -> range:
        """The sequences of a token file that make up a document."""
        first, end = self.index.tokens[source].documents[document : document + 2].tolist()
        return range(first, end)

    def passages(self, split: Split, sample: int) -> list[Passage]:
        """What a sample holds, in order."""
        samples = self.splits[split]
        source, number = samples.place(sample)
        order = samples.orders[source]
        lengths = self.index.tokens[source].lengths
        found = (
            _packed_passages(order, number)
            if isinstance(order, PackedOrder)
            else _passages(order, number, lengths)
        )
        return [Passage(sample, source, *run) for run in found]

    def find(self, name: str) -> list[tuple[int, int]]:
        """(source, sequence) of every sequence of the documents of that name."""
        return [
            (source, sequence)
            for source in range(len(self.index.tokens))
            for document in self.names(source).find(name)
            for sequence in self.sequences_of(source, document)
        ]

    def sightings(self, source: int, sequences: Iterable[int]) -> Iterator[Sighting]:
        """Every sample of every split that holds a token of some sequences of a source.

        By split, sequence and sample. The order of each split is gone through twice, however many
        sequences are asked for.
        """
        wanted = np.unique(np.fromiter(sequences, np.int32))
        for split, samples in self.splits.items():
            if source < len(samples.orders) and len(wanted):
                for sequence, sample in _places(samples, source, wanted):
                    yield Sighting(split, source, sequence, sample)


def _places(samples: SplitSamples, source: int, wanted: NDArray[np.int32]) -> list[tuple[int, int]]:
    """(sequence, sample) of every sample of a split that holds a token of some sequences."""
    order = samples.orders[source]
    rows = _packed_rows(order, wanted) if isinstance(order, PackedOrder) else _rows(order, wanted)
    numbers = _numbers(order, [row for _, row in rows])
    rising = sorted(number for several in numbers.values() for number in several)
    # a blend gives the samples of a source in their order: those that it leaves out are the last
    given = dict(zip(rising, samples.find(source, rising), strict=False))
    return sorted(
        (sequence, given[number])
        for sequence, row in rows
        for number in numbers.get(row, [])
        if number in given
    )


def _passages(
    order: SourceOrder, number: int, lengths: NDArray[np.int32]
) -> Iterator[tuple[int, int, int]]:
    """(document, first token, tokens) of a concatenated sample."""
    row = int(order.shuffle[number])
    (first, offset), (last, end) = order.starts[row].tolist(), order.starts[row + 1].tolist()
    for place in range(first, last + 1):
        document = int(order.documents[place])
        start = offset if place == first else 0
        stop = end + 1 if place == last else int(lengths[document])
        if stop > start:
            yield document, start, stop - start


def _packed_passages(order: PackedOrder, number: int) -> Iterator[tuple[int, int, int]]:
    pieces = order.pieces(number)
    parts = (order.documents[pieces], order.offsets[pieces], order.lengths[pieces])
    yield from zip(*(part.tolist() for part in parts), strict=True)


def _rows(order: SourceOrder, wanted: NDArray[np.int32]) -> list[tuple[int, int]]:
    """(sequence, row) of the samples, in the order of the stream, that hold some sequences."""
    places = _where(order.documents, wanted)
    column = order.starts[:, 0]
    firsts = np.maximum(_search(column, places, "left") - 1, 0)
    lasts = np.minimum(_search(column, places, "right") - 1, len(column) - 2)
    spans = zip(order.documents[places].tolist(), firsts.tolist(), lasts.tolist(), strict=True)
    found = {(one, row) for one, first, last in spans for row in range(first, last + 1)}
    return sorted(found)


def _packed_rows(order: PackedOrder, wanted: NDArray[np.int32]) -> list[tuple[int, int]]:
    """(sequence, bin) of the bins that hold some sequences."""
    pieces = _where(order.documents, wanted)
    bins = np.searchsorted(order.first, pieces, side="right") - 1
    return sorted(set(zip(order.documents[pieces].tolist(), bins.tolist(), strict=True)))


def _numbers(order: SourceOrder | PackedOrder, rows: list[int]) -> dict[int, list[int]]:
    """Which samples of a source some rows are: one, or one an epoch."""
    found: dict[int, list[int]] = {}
    numbers = _where(order.shuffle, np.unique(np.array(rows, order.shuffle.dtype)))
    for number, row in zip(numbers.tolist(), order.shuffle[numbers].tolist(), strict=True):
        found.setdefault(row, []).append(number)
    return found


def _where(values: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.int64]:
    """Places of some values in an array that may be mapped and large, rising."""
    found = [
        np.flatnonzero(np.isin(values[first : first + LOOK], wanted)) + first
        for first in range(0, len(values), LOOK)
    ]
    return np.concatenate([np.empty(0, np.int64), *found])


def _search(
    column: NDArray[Any], values: NDArray[np.int64], side: Literal["left", "right"]
) -> NDArray[np.int64]:
    """`np.searchsorted` of a column of an array that is mapped: numpy would copy all of it."""
    low, high = np.zeros(len(values), np.int64), np.full(len(values), len(column), np.int64)
    while np.any(low < high):
        middle = np.minimum((low + high) // 2, len(column) - 1)
        below = column[middle] < values if side == "left" else column[middle] <= values
        open_ = low < high
        low = np.where(open_ & below, middle + 1, low)
        high = np.where(open_ & ~below, middle, high)
    return low
