"""Documents out of lines; what is none is rejected with its reason, never lost."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from megatron_jobs.text.lines import Damage, Line, read_lines
from megatron_jobs.text.names import id_of
from megatron_jobs.text.sources import Piece

ID = "id"
"""The key of a record's name."""


@dataclass(frozen=True)
class Document:
    """One document."""

    number: int
    """Of its line in its piece, from 1."""
    text: str
    raw: bytes
    """The line it came from."""
    id: str = ""
    """Of the record; empty when it has none."""


@dataclass(frozen=True)
class Rejected:
    """A line that is no document."""

    number: int
    """Of the line in its piece, from 1."""
    reason: str
    raw: Iterable[bytes]
    """The line, in chunks; to be read before the next document."""
    damaged: bool = False
    """Whether it is a place in a packed file that cannot be read."""


class NotADocument(ValueError):
    """Why a line is no document."""


def read_documents(piece: Piece, *, key: str, limit: int) -> Iterator[Document | Rejected]:
    """What each line of `piece` holds, in order; a damaged place is a rejected line.

    Args:
        key: of the text in the JSON object of a line.
        limit: bytes; a longer line is rejected and never held in memory as a whole.
    """
    for line in read_lines(piece, limit):
        yield judge(line, piece.file.whole, key, limit)


def first_texts(
    pieces: Iterable[Piece], letters: int, *, key: str, limit: int, most: int | None = None
) -> Iterator[str]:
    """Texts of the documents of `pieces` until they hold some number of letters.

    Args:
        most: letters of one text; None for all of it.
    """
    for piece in pieces:
        for item in read_documents(piece, key=key, limit=limit):
            if isinstance(item, Document):
                yield item.text[:most]
                letters -= len(item.text[:most])
            if letters <= 0:
                return


def judge(line: Line | Damage, whole: bool, key: str, limit: int) -> Document | Rejected:
    """What a line holds; `whole` when it is a file that is one document."""
    if isinstance(line, Damage):
        return Rejected(line.number, line.reason, [line.head], damaged=True)
    if line.too_long:
        raw = chain([line.head], line.rest)
        return Rejected(line.number, f"over {limit / 1e6:g} MB", raw)
    try:
        text, name = (decode(line.head), "") if whole else text_and_id(line.head, key)
        if not text.strip():
            raise NotADocument("empty")
    except NotADocument as reason:
        return Rejected(line.number, str(reason), [line.head])
    return Document(line.number, text, line.head, name)


def text_and_id(line: bytes, key: str) -> tuple[str, str]:
    """The text under `key` of the JSON object that a line is, and its id; raises NotADocument.

    The id is a string or a whole number under "id"; empty when there is none.
    """
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
    if not _is_utf8(text):
        raise NotADocument("half a surrogate pair")
    return text, id_of(value.get(ID)) if key != ID else ""


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def decode(raw: bytes) -> str:
    """UTF-8 text; raises NotADocument."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotADocument("not UTF-8") from None
