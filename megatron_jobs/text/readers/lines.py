"""JSON objects, one a line; plain, gz or zst."""

import math
from collections.abc import Iterable, Iterator
from typing import IO

from megatron_jobs.text.documents import NotADocument
from megatron_jobs.text.members import CHUNK, PACKED, Chunk, Gap, unpack
from megatron_jobs.text.readers import Item, Piece, ReadRules
from megatron_jobs.text.record import from_line
from megatron_jobs.text.shards import HEAD, Quarantined

BOM = b"\xef\xbb\xbf"
Line = tuple[int, int, bytes]
"""(where it begins in the unpacked bytes, bytes with its end, itself or, of a long one, a part)."""


def read(piece: Piece, rules: ReadRules) -> Iterator[Item]:
    """The records of the lines that start in the piece.

    A place is FILE:LINE; in a piece that starts inside a file FILE@OFFSET.
    """
    for line, place in placed_lines(piece, rules.limit):
        yield item_of(line, place, rules)


def placed_lines(piece: Piece, limit: int) -> Iterator[tuple[Line | Gap, str]]:
    """The lines that start in the piece, and their places."""
    name, number = piece.name, 0
    for line in read_lines(piece, limit):
        if isinstance(line, Gap):
            yield line, f"{name}@{line.at}"
            continue
        number += 1
        yield line, f"{name}@{line[0]}" if piece.start else f"{name}:{number}"


def read_lines(piece: Piece, limit: int) -> Iterator[Line | Gap]:
    """The lines that start in the piece; of one over `limit` bytes only the head is held."""
    with piece.open() as file:
        if piece.path.name.lower().endswith(PACKED):
            yield from _lines(unpack(file, piece.path.name), 0, limit)
            return
        start = _first_line(file, piece.start, piece.end)
        if start >= piece.end:
            return
        file.seek(start)
        chunks = (Chunk(data, 0, False) for data in iter(lambda: file.read(CHUNK), b""))
        yield from _lines(chunks, start, limit, piece.end)


def _first_line(file: IO[bytes], start: int, end: int) -> int:
    """Where the first line begins that does so in [start, end); `end` or more when none does.

    It looks no further: a line of many pieces is read by that which it begins in, not by each.
    """
    if not start:
        return 0
    at = start - 1
    file.seek(at)
    while at < end and (data := file.read(min(CHUNK, end - at))):
        found = data.find(b"\n")
        if found >= 0:
            return at + found + 1
        at += len(data)
    return end


def _lines(
    chunks: Iterable[Chunk | Gap], at: int, limit: int, end: float = math.inf
) -> Iterator[Line | Gap]:
    """Lines of bytes that begin at `at`, to the first that begins at `end` or behind. A line that a
    gap cuts is given as far as it goes."""
    open_line, size = bytearray(), 0
    for chunk in chunks:
        if at >= end:
            return
        if isinstance(chunk, Gap):
            if size:
                yield at, size, bytes(open_line)
            yield chunk
            open_line, at, size = bytearray(), at + size, 0
            continue
        first, *others = chunk.data.split(b"\n")
        size += len(first)
        open_line += first[: max(limit + 1 - len(open_line), 0)]
        if not others:
            continue
        yield at, size + 1, bytes(open_line)
        at += size + 1
        for line in others[:-1]:
            if at >= end:
                return
            yield at, len(line) + 1, line
            at += len(line) + 1
        open_line, size = bytearray(others[-1]), len(others[-1])
    if size and at < end:
        yield at, size, bytes(open_line)


def item_of(line: Line | Gap, place: str, rules: ReadRules) -> Item:
    """What a line is."""
    if isinstance(line, Gap):
        return Quarantined(place, line.reason, line.size)
    _, size, data = line
    if len(data) > rules.limit:
        return Quarantined(place, "too long", size, data[:HEAD])
    try:
        return from_line(data.removeprefix(BOM), place=place, key=rules.key)
    except NotADocument as reason:
        return Quarantined(place, str(reason), size, data[:HEAD])
