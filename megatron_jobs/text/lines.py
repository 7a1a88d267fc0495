"""Lines of a piece of a file, many at a time, with a limit on what is held in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from megatron_jobs.text.members import CHUNK, PACKED, Gap, unpack
from megatron_jobs.text.sources import Piece

BOM = b"\xef\xbb\xbf"


@dataclass
class Line:
    """One line, without its line end."""

    number: int
    """In its piece, from 1."""
    head: bytes
    """All of it, or, where it is too long, its beginning."""
    rest: Iterator[bytes]
    """What comes after `head` in a line that is too long; to be read before the next line."""
    too_long: bool


@dataclass
class Block:
    """Whole lines with their ends; the last one may lack it."""

    number: int
    """Of the first line in its piece, from 1."""
    content: bytes


@dataclass
class Damage:
    """Something in a packed file that cannot be read; what comes after it begins a line."""

    number: int
    """In its piece, from 1: it counts as a line."""
    reason: str
    head: bytes
    """What had been read of the line that it cuts."""


def read_lines(piece: Piece, limit: int) -> Iterator[Line | Damage]:
    """The lines that start in `piece`; those over `limit` bytes come in chunks.

    A file that is one document is one line; where it is damaged, it is none.
    """
    for item in read_blocks(piece, limit):
        if isinstance(item, Block):
            yield from lines_of(item, limit)
        else:
            yield item


def lines_of(block: Block, limit: int) -> Iterator[Line]:
    """The lines of a block."""
    lines = block.content.split(b"\n")
    last = lines.pop()
    bodies = [line.removesuffix(b"\r") for line in lines] + [last] * bool(last)
    for place, body in enumerate(bodies):
        yield Line(block.number + place, body, iter(()), len(body) > limit)


def read_blocks(piece: Piece, limit: int) -> Iterator[Block | Line | Damage]:
    """The same in blocks of many lines; what does not go into one comes as a line of its own."""
    if piece.file.whole:
        return _whole_file(_Source(piece.file.path), limit)
    start, end = _line_bounds(piece)
    source = _Source(piece.file.path, start, end)
    return _BlockReader(source, limit).read(at_file_start=start == 0)


class _Source:
    """The content of a file in chunks of a good size, up to a damage, and on after it.

    Of a file that is not packed, its bytes in [start, end).
    """

    def __init__(self, path: Path, start: int = 0, end: int | None = None) -> None:
        self.damage = ""
        self._kind = "gzip" if path.name.endswith(".gz") else "zstd"
        packed = path.name.endswith(PACKED)
        self._items = _unpacked(path) if packed else _bytes_of(path, start, end)

    def next(self) -> bytes:
        """The next bytes; none at the end, or where there is a damage."""
        parts: list[bytes] = []
        size = 0
        while not self.damage and size < CHUNK and (item := next(self._items, None)) is not None:
            if isinstance(item, Gap):
                damaged, cut = f"damaged {self._kind}", f"{self._kind} cut short"
                self.damage = cut if item.reason == "cut short" else damaged
            else:
                parts.append(item)
                size += len(item)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pass_damage(self) -> str:
        """What the damage is; `next` gives what comes after it."""
        damage, self.damage = self.damage, ""
        return damage


def _unpacked(path: Path) -> Iterator[bytes | Gap]:
    with path.open("rb", buffering=0) as file:
        for item in unpack(file, path.name):
            yield item if isinstance(item, Gap) else item.data


def _bytes_of(path: Path, start: int, end: int | None) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        left = CHUNK if end is None else end - start
        while left and (chunk := file.read(min(left, CHUNK))):
            yield chunk
            left -= 0 if end is None else len(chunk)


def _whole_file(source: _Source, limit: int) -> Iterator[Line | Damage]:
    head = bytearray()
    while len(head) <= limit and (chunk := source.next()):
        head += chunk
    if source.damage:
        yield Damage(1, source.damage, bytes(head))
    elif len(head) <= limit:
        yield Line(1, bytes(head).removeprefix(BOM), iter(()), False)
    else:
        yield Line(1, bytes(head).removeprefix(BOM), iter(source.next, b""), True)
        if source.damage:
            yield Damage(2, source.damage, b"")


class _BlockReader:
    """Cuts chunks after their last line end, and carries the rest over."""

    def __init__(self, source: _Source, limit: int) -> None:
        self.source = source
        self.limit = limit
        self.carry = b""
        self.number = 1

    def read(self, *, at_file_start: bool) -> Iterator[Block | Line | Damage]:
        yield from self._until_damage(BOM if at_file_start else b"")
        while damage := self.source.pass_damage():
            yield Damage(self.number, damage, self.carry)
            self.number, self.carry = self.number + 1, b""
            yield from self._until_damage(b"")
        if self.carry:
            yield Block(self.number, self.carry)

    def _until_damage(self, bom: bytes) -> Iterator[Block | Line]:
        chunk = self.source.next().removeprefix(bom)
        while chunk:
            end = chunk.rfind(b"\n") + 1
            if end:
                content = b"".join([self.carry, memoryview(chunk)[:end]])
                self.carry = chunk[end:]
                yield Block(self.number, content)
                self.number += _line_ends(content)
            else:
                self.carry += chunk
            if len(self.carry) > self.limit + len(b"\r"):
                yield from self._long_line()
                self.number += 1
            chunk = self.source.next()

    def _long_line(self) -> Iterator[Line]:
        head, self.carry = self.carry, b""
        rest = self._rest(b"\r" * head.endswith(b"\r"))
        yield Line(self.number, head.removesuffix(b"\r"), rest, True)
        for _ in rest:  # a consumer may not want it
            pass

    def _rest(self, held: bytes) -> Iterator[bytes]:
        """What follows up to the line end; \\r is held back until it is known what comes next."""
        while chunk := self.source.next():
            body, end, after = chunk.partition(b"\n")
            body = held + body
            held = b"\r" * (body.endswith(b"\r"))
            yield body.removesuffix(b"\r")
            if end:
                self.carry = after
                return
        yield held


def _line_ends(content: bytes) -> int:
    """Four times as fast as bytes.count."""
    return int(np.count_nonzero(np.frombuffer(content, np.uint8) == ord("\n")))


def _line_bounds(piece: Piece) -> tuple[int, int | None]:
    """Where the first line that starts in the piece does so, and the first after it."""
    if piece.file.packed:
        return 0, None
    with piece.file.path.open("rb", CHUNK) as file:
        start = _line_start(file, piece.start, piece.end)
        if start >= piece.end:  # a line that goes on is read once, not by each piece that it is in
            return piece.end, piece.end
        return start, _line_start(file, piece.end, piece.file.size)


def _line_start(file: IO[bytes], place: int, end: int) -> int:
    """The first line that starts at `place` or after it; `end` or more when none does before."""
    if place:
        file.seek(place - 1)
        while file.tell() < end and (chunk := file.readline(CHUNK)) and not chunk.endswith(b"\n"):
            pass
    return file.tell()
