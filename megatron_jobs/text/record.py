"""The one shape of a document between a crawl and the tokens.

    id        names it through all stages; unique in a corpus, kept by every stage. A foreign one is
              a string or a whole number; a record without is named by its place
    text      what is trained on; UTF-8, never with half a surrogate pair
    source    where it came from, such as "common-crawl" or "books": blends and reports go by it
    licence   as its source states it, SPDX where there is one; "" when nobody said
    language  ISO 639-1 (639-3 where there is none), lower case; "" before it is identified
    url       address it was fetched from; "" when there is none
    date      ISO 8601, when it was fetched or published; "" when nobody said
    metadata  all else: an object of JSON values. Stages add scores under their own names

On disk: JSON objects with these keys, one a line, those that are empty left out; other keys of a
foreign file go to metadata.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import orjson

from megatron_jobs.text.documents import NotADocument
from megatron_jobs.text.names import id_of

WORDS = ("source", "licence", "language", "url", "date")
ALIASES = {"license": "licence", "lang": "language", "timestamp": "date", "added": "date"}
"""Names that other suites give to our fields."""
OTHERS = (*WORDS, "metadata")
NAMES = ("id", "text", *OTHERS)
SPARE_DEPTH = 8
"""Levels that metadata may be put into: JSON is written to a depth of 254, but read to 1,024."""


@dataclass(slots=True)
class Record:
    """One document; see the module."""

    id: str
    text: str
    source: str = ""
    licence: str = ""
    language: str = ""
    url: str = ""
    date: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""
    """What a crawl answered, before `extract` has made text of it; never written."""


def to_line(record: Record, **more: Any) -> bytes:
    """A record as a line of JSON, with its line end; `more` are keys of their own, such as
    the verdict of a record that was rejected."""
    assert not record.payload, f"{record.id}: bytes of a crawl are no text yet"
    kept: dict[str, Any] = {"id": record.id, "text": record.text}
    for name in OTHERS:
        if value := getattr(record, name):
            kept[name] = value
    if more:
        kept |= more
    return orjson.dumps(kept, option=orjson.OPT_APPEND_NEWLINE)


def from_line(line: bytes, *, place: str, key: str = "text") -> Record:
    """The record in a line of JSON, ours or a foreign one.

    Args:
        place: names it when it has no id.
        key: of the text.
    Raises: NotADocument.
    """
    try:
        found = orjson.loads(line)
    except ValueError:
        raise NotADocument(_fault_of(line)) from None
    if not isinstance(found, dict):
        raise NotADocument("no JSON object")
    if isinstance(found.get("id"), float):
        found["id"] = _exact_id(line)
    return from_object(found, place=place, key=key)


def _object_in(metadata: Any) -> Any:
    """Metadata as they are; an object where they are the text of one, as tables hold them."""
    if not isinstance(metadata, str) or not metadata.startswith("{"):
        return metadata or None
    try:
        return orjson.loads(metadata)
    except ValueError:
        return metadata


def _fault_of(line: bytes) -> str:
    """Why a line is no JSON."""
    if not line.strip():
        return "empty"
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    return "not JSON"


def _exact_id(line: bytes) -> Any:
    """The id in a line where orjson has seen a float: whole numbers over 64 bits are none."""
    try:
        return json.loads(line)["id"]
    except (ValueError, RecursionError):
        return None


def from_object(found: dict[str, Any], *, place: str, key: str = "text") -> Record:
    """The record in a decoded object, its strings without half surrogate pairs; see `from_line`.

    With key "" it has no text: all that is in the object goes to the fields and the metadata.
    """
    if key and key not in found:
        raise NotADocument(f"no key {key!r}")
    text = found.pop(key) if key else ""
    if not isinstance(text, str):
        raise NotADocument(f"{key!r} is no string")
    metadata = _object_in(found.pop("metadata", None))
    number = found.pop("id", None)
    record = Record(id_of(number) or place, text)
    record.metadata = metadata if isinstance(metadata, dict) else {}
    if metadata is not None and not isinstance(metadata, dict):
        found["metadata"] = metadata
    for name, value in found.items():
        field_name = ALIASES.get(name, name)
        if field_name in WORDS and isinstance(value, str) and not getattr(record, field_name):
            setattr(record, field_name, value)
        elif value is not None:
            record.metadata.setdefault(name, value)
    if number not in (None, "") and not id_of(number):  # lists and the like
        record.metadata.setdefault("id", number)
    if any(map(_is_doubtful, record.metadata.values())):
        _must_be_plain(record.metadata)
    return record


def _is_doubtful(value: Any) -> bool:
    """Whether it may be something that cannot be written; strings have been looked at."""
    if isinstance(value, int):
        return not -(1 << 63) <= value < 1 << 64
    return isinstance(value, (dict, list))


def _must_be_plain(metadata: dict[str, Any]) -> None:
    """Raise NotADocument for what can be read but not written again, by us or who reads us."""
    value: Any = metadata
    for _ in range(SPARE_DEPTH):
        value = [value]
    try:
        orjson.dumps(value)
    except TypeError:
        raise NotADocument("no plain JSON") from None
