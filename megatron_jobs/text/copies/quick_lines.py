"""Lines of JSON many at a time, for what fingerprints need of them and no more.

C++ takes a block of lines when it is sure of all of them, and finds in them what `readers.lines`
would; every other block is read by that, line by line.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from megatron_jobs._copies import mentions
from megatron_jobs._lines import extract
from megatron_jobs.text.copies.arrays import I64
from megatron_jobs.text.members import Gap
from megatron_jobs.text.readers import READERS, Item, Piece, ReadRules
from megatron_jobs.text.readers.lines import Line, item_of, placed_lines
from megatron_jobs.text.record import ALIASES

BLOCK = 1 << 18
"""Bytes from which on a block is taken."""
ID = "id"
FIELDS = {
    name: field
    for name, field in {"source": "source", "date": "date", **ALIASES}.items()
    if field in ("source", "date")
}
"""Keys of a line that a `Brief` has something of."""
Placed = tuple[Line | Gap, str]


@dataclass(slots=True)
class Brief:
    """What fingerprints need of a record without metadata."""

    id: str
    text: bytes
    """UTF-8."""
    source: str = ""
    date: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Always empty."""


def reads_quickly(piece: Piece) -> bool:
    """Whether `read_briefly` can read a piece."""
    return READERS.get(piece.format) == "lines"


def read_briefly(piece: Piece, rules: ReadRules) -> Iterator[Item | Brief]:
    """What the reader of lines gives, with a brief in place of most records."""
    block: list[Placed] = []
    held = 0
    for placed in placed_lines(piece, rules.limit):
        block.append(placed)
        held += 0 if isinstance(placed[0], Gap) else len(placed[0][2])
        if held > BLOCK:
            yield from _items(block, rules)
            block, held = [], 0
    yield from _items(block, rules)


def _items(block: list[Placed], rules: ReadRules) -> Iterator[Item | Brief]:
    lines = [line[2] for line, _ in block if not isinstance(line, Gap)]
    briefs = _briefs(b"\n".join(lines), [place for _, place in block], rules)
    if len(briefs) == len(block):  # there was no gap either
        return iter(briefs)
    return (item_of(line, place, rules) for line, place in block)


def _briefs(lines: bytes, places: list[str], rules: ReadRules) -> list[Brief]:
    """One of each line; none where one of them is not sure."""
    found = extract(lines, key=rules.key, id_key=ID, separator=b"", limit=rules.limit)
    texts, sizes, ids, id_sizes, _, sure = found
    nameless = not id_sizes.all()
    if len(sure) != len(places) or not sure.all() or (nameless and mentions(lines, [ID])):
        return []
    names = places if nameless else [name.decode() for name in _cut(ids, id_sizes)]
    briefs = [Brief(name, text) for name, text in zip(names, _cut(texts, sizes), strict=True)]
    if mentions(lines, [*FIELDS]):
        told = [name for name in FIELDS if mentions(lines, [name])]
        if not all(_fill(briefs, name, lines, rules) for name in told):
            return []
    return briefs


def _fill(briefs: list[Brief], name: str, lines: bytes, rules: ReadRules) -> bool:
    """Set what each line has under a key; False when one has it not, or not surely."""
    if name == rules.key:
        return False
    found = extract(lines, key=name, id_key="", separator=b"", limit=rules.limit)
    values, sizes, sure = found[0], found[1], found[5]
    if not sure.all() or any(getattr(brief, FIELDS[name]) for brief in briefs[:1]):
        return False
    for brief, value in zip(briefs, _cut(values, sizes), strict=True):
        setattr(brief, FIELDS[name], value.decode())
    return True


def _cut(joined: bytes, sizes: I64) -> list[bytes]:
    ends = np.cumsum(sizes).tolist()
    return [joined[end - size : end] for end, size in zip(ends, sizes.tolist(), strict=True)]
