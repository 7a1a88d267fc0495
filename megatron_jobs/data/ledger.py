"""Which document stood in which training step, and the other way round.

Nothing is written while a model trains: the samples of a step are a pure function of the index and
the batch size, so what stood where is found afterwards, from the index, the token files and the
names beside them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.data.document_names import DocumentNames
from megatron_jobs.data.packing import PackedOrder
from megatron_jobs.data.sample_index import SampleIndex
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
        """The names of a source's documents; DataError when it was tokenized without."""
        if source not in self._names:
            self._names[source] = DocumentNames.open(self.index.tokens[source].prefix)
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

    def sightings(self, source: int, sequence: int) -> Iterator[Sighting]:
        """Every sample of every split that holds a token of a sequence, by split and sample."""
        for split, samples in self.splits.items():
            if source >= len(samples.orders):
                continue
            order = samples.orders[source]
            numbers = (
                _packed_samples(order, sequence)
                if isinstance(order, PackedOrder)
                else _samples(order, sequence)
            )
            for sample in sorted(samples.find(source, numbers)):
                yield Sighting(split, source, sequence, sample)


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


def _samples(order: SourceOrder, document: int) -> list[int]:
    """The samples of a source, in its own order, that hold a document."""
    places = _where(order.documents, document)
    rows: set[int] = set()
    for place in places:
        first = int(np.searchsorted(order.starts[:, 0], place, side="left")) - 1
        last = int(np.searchsorted(order.starts[:, 0], place, side="right")) - 1
        rows.update(range(max(first, 0), min(last, len(order.starts) - 2) + 1))
    return _where_any(order.shuffle, sorted(rows))


def _packed_samples(order: PackedOrder, document: int) -> list[int]:
    pieces = _where(order.documents, document)
    bins = np.searchsorted(order.first, pieces, side="right") - 1
    return _where_any(order.shuffle, sorted(set(bins.tolist())))


def _where(values: NDArray[Any], wanted: int) -> list[int]:
    """Places of a value in an array that may be mapped and large."""
    found: list[int] = []
    for first in range(0, len(values), LOOK):
        found += (np.flatnonzero(values[first : first + LOOK] == wanted) + first).tolist()
    return found


def _where_any(values: NDArray[Any], wanted: Sequence[int]) -> list[int]:
    found: list[int] = []
    for first in range(0, len(values), LOOK):
        found += (np.flatnonzero(np.isin(values[first : first + LOOK], wanted)) + first).tolist()
    return found
