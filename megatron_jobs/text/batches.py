"""Documents many at a time: their texts end to end, as the bulk encoder takes them.

C++ takes the lines that it is sure of; each other one is judged by `documents.judge`, so that what
is a document, and why a line is none, is the same as line by line.

D = documents of a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._lines import extract
from megatron_jobs.text.documents import ID, Document, Rejected, judge
from megatron_jobs.text.lines import Block, Damage, Line, read_blocks
from megatron_jobs.text.sources import Piece

SEPARATOR = "\ufdd0\ufdd1\ufdd2"
"""Stands between texts: three characters that Unicode keeps for such use, never for text. It does
not end as it begins, so one in a text cannot hide one between texts."""
BETWEEN = SEPARATOR.encode()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The documents of some lines of a piece, in order, and the lines that are none."""

    lines: int
    size: int
    """Bytes read."""
    numbers: NDArray[np.int64]
    """[D], of their lines in the piece, from 1."""
    texts: bytes
    """UTF-8, with SEPARATOR between them."""
    sizes: NDArray[np.int64]
    """[D], bytes of each text."""
    ids: bytes
    """Of the records, end to end, in UTF-8."""
    id_sizes: NDArray[np.int64]
    """[D], bytes of each id; 0 for a record without one."""
    rejected: Sequence[Rejected]
    raw: Callable[[int], bytes]
    """The line of document d."""

    def __len__(self) -> int:
        """Documents."""
        return len(self.sizes)


def cut_texts(texts: bytes, sizes: NDArray[np.int64]) -> Iterator[bytes]:
    """The texts that stand in `texts` with SEPARATOR between them, of so many bytes each."""
    start = 0
    for size in sizes.tolist():
        yield texts[start : start + size]
        start += size + len(BETWEEN)


def read_batches(piece: Piece, *, key: str, limit: int) -> Iterator[Batch]:
    """What `documents.read_documents` gives, many at a time; a batch is to be used up, with its
    rejected lines, before the next one."""
    for item in read_blocks(piece, limit):
        if isinstance(item, Block):
            yield _of_block(item, key, limit)
        else:
            yield _of_line(item, judge(item, piece.file.whole, key, limit))


def _of_line(line: Line | Damage, judged: Document | Rejected) -> Batch:
    documents = [judged] if isinstance(judged, Document) else []
    return _of_documents(
        documents,
        lines=1,
        size=len(line.head),
        rejected=[judged] if isinstance(judged, Rejected) else [],
        raw=lambda _: line.head,
    )


def _of_documents(
    documents: Sequence[Document],
    *,
    lines: int,
    size: int,
    rejected: Sequence[Rejected],
    raw: Callable[[int], bytes],
) -> Batch:
    texts = [document.text.encode("utf-8") for document in documents]
    ids = [document.id.encode("utf-8") for document in documents]
    return Batch(
        lines=lines,
        size=size,
        numbers=np.array([document.number for document in documents], dtype=np.int64),
        texts=BETWEEN.join(texts),
        sizes=np.array([len(text) for text in texts], dtype=np.int64),
        ids=b"".join(ids),
        id_sizes=np.array([len(name) for name in ids], dtype=np.int64),
        rejected=rejected,
        raw=raw,
    )


def _of_block(block: Block, key: str, limit: int) -> Batch:
    found = extract(block.content, key=key, id_key=ID, separator=BETWEEN, limit=limit)
    texts, sizes, ids, id_sizes, ends, sure = found
    sure_lines = np.flatnonzero(sure)
    batch = Batch(
        lines=len(sure),
        size=len(block.content),
        numbers=sure_lines + block.number,
        texts=texts,
        sizes=sizes,
        ids=ids,
        id_sizes=id_sizes,
        rejected=[],
        raw=lambda document: _line(block.content, ends, int(sure_lines[document])),
    )
    if len(sure_lines) == len(sure):
        return batch
    judged = [
        judge(_as_line(block, ends, int(place), limit), False, key, limit)
        for place in np.flatnonzero(sure == 0)
    ]
    return _merged(batch, judged, partial(_line, block.content, ends), block.number)


def _merged(
    sure: Batch, judged: list[Document | Rejected], line: Callable[[int], bytes], first: int
) -> Batch:
    """The batch of the sure documents and of those judged line by line."""
    rejected = [item for item in judged if isinstance(item, Rejected)]
    others = [item for item in judged if isinstance(item, Document)]
    if not others:
        return replace(sure, rejected=rejected)
    documents = sorted([*_documents_of(sure), *others], key=lambda document: document.number)
    numbers = [document.number - first for document in documents]
    return _of_documents(
        documents,
        lines=sure.lines,
        size=sure.size,
        rejected=rejected,
        raw=lambda document: line(numbers[document]),
    )


def _documents_of(batch: Batch) -> Iterator[Document]:
    ends = np.cumsum(batch.id_sizes)
    ids = np.split(np.frombuffer(batch.ids, np.uint8), ends[:-1]) if len(batch) else []
    texts = cut_texts(batch.texts, batch.sizes)
    for number, text, name in zip(batch.numbers.tolist(), texts, ids, strict=True):
        yield Document(number, text.decode("utf-8"), b"", name.tobytes().decode("utf-8"))


def _as_line(block: Block, ends: NDArray[np.int64], place: int, limit: int) -> Line:
    body = _line(block.content, ends, place)
    return Line(block.number + place, body, iter(()), len(body) > limit)


def _line(content: bytes, ends: NDArray[np.int64], place: int) -> bytes:
    """A line of a block, without its end."""
    start = int(ends[place - 1]) + 1 if place else 0
    end = int(ends[place])
    line = content[start:end]
    return line.removesuffix(b"\r") if end < len(content) else line
