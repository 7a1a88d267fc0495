"""Documents out of lines; what is none is rejected with its reason, never lost."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from megatron_jobs.text.lines import Line, read_lines
from megatron_jobs.text.sources import Piece, TextFile


@dataclass(frozen=True)
class Document:
    """One document."""

    number: int
    """Of its line in its piece, from 1."""
    text: str
    raw: bytes
    """The line it came from."""


@dataclass(frozen=True)
class Rejected:
    """A line that is no document."""

    number: int
    """Of the line in its piece, from 1."""
    reason: str
    raw: Iterable[bytes]
    """The line, in chunks; to be read before the next document."""


class NotADocument(ValueError):
    """Why a line is no document."""


def read_documents(piece: Piece, *, key: str, limit: int) -> Iterator[Document | Rejected]:
    """What each line of `piece` holds, in order.

    Args:
        key: of the text in the JSON object of a line.
        limit: bytes; a longer line is rejected and never held in memory as a whole.
    """
    for line in read_lines(piece, limit):
        yield _document_of(line, piece.file.whole, key, limit)


def first_texts(files: Sequence[TextFile], letters: int, *, key: str, limit: int) -> Iterator[str]:
    """Texts of the documents of `files` until they hold some number of letters."""
    for file in files:
        for item in read_documents(Piece(file, 0, file.size), key=key, limit=limit):
            if isinstance(item, Document):
                yield item.text
                letters -= len(item.text)
            if letters <= 0:
                return


def _document_of(line: Line, whole: bool, key: str, limit: int) -> Document | Rejected:
    if line.too_long:
        raw = chain([line.head], line.rest)
        return Rejected(line.number, f"over {limit / 1e6:g} MB", raw)
    try:
        text = decode(line.head) if whole else text_in(line.head, key)
        if not text.strip():
            raise NotADocument("empty")
    except NotADocument as reason:
        return Rejected(line.number, str(reason), [line.head])
    return Document(line.number, text, line.head)


def text_in(line: bytes, key: str) -> str:
    """The text under `key` of the JSON object that a line is; raises NotADocument."""
    try:
        value = json.loads(decode(line))
    except RecursionError:
        raise NotADocument("JSON nested too deeply") from None
    except NotADocument:
        raise
    except ValueError:  # of JSON, or of a number with thousands of digits
        raise NotADocument("not JSON" if line.strip() else "empty") from None
    if not isinstance(value, dict):
        raise NotADocument("no JSON object")
    if key not in value:
        raise NotADocument(f"no key {key!r}")
    text = value[key]
    if not isinstance(text, str):
        raise NotADocument(f"{key!r} is no string")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise NotADocument("half a surrogate pair") from None
    return text


def decode(raw: bytes) -> str:
    """UTF-8 text; raises NotADocument."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotADocument("not UTF-8") from None
