"""Lines of a piece of a file, many at a time, with a limit on what is held in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from megatron_jobs.text.packed import CHUNK, DamagedFileError, read_chunks
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
    """A packed file gives no more from here on."""

    number: int
    """Of the line in its piece, from 1."""
    reason: str
    head: bytes
    """What had been read of that line."""


def read_lines(piece: Piece, limit: int) -> Iterator[Line | Damage]:
    """The lines that start in `piece`; those over `limit` bytes come in chunks.

    A file that is one document is one line. What can be read of a damaged file comes first.
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
        return _whole_file(_Source(read_chunks(piece.file.path)), limit)
    start, end = _line_bounds(piece)
    source = _Source(read_chunks(piece.file.path, start, end))
    return _BlockReader(source, limit).read(at_file_start=start == 0)


class _Source:
    """Chunks of a good size, and what ended them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.damage = ""
        self._chunks = chunks

    def next(self) -> bytes:
        """The next bytes; none at the end, or where the file is damaged."""
        parts: list[bytes] = []
        size = 0
        try:
            while size < CHUNK and (chunk := next(self._chunks, None)) is not None:
                parts.append(chunk)
                size += len(chunk)
        except DamagedFileError as error:
            self.damage = f"damaged ({error})"
            self._chunks = iter(())
        return parts[0] if len(parts) == 1 else b"".join(parts)


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

    def read(self, *, at_file_start: bool) -> Iterator[Block | Line | Damage]:
        number = 1
        chunk = self.source.next()
        chunk = chunk.removeprefix(BOM) if at_file_start else chunk
        while chunk:
            end = chunk.rfind(b"\n") + 1
            if end:
                content = self.carry + chunk[:end]
                self.carry = chunk[end:]
                yield Block(number, content)
                number += _line_ends(content)
            else:
                self.carry += chunk
            if len(self.carry) > self.limit + len(b"\r"):
                yield from self._long_line(number)
                number += 1
            chunk = self.source.next()
        if self.source.damage:
            yield Damage(number, self.source.damage, self.carry)
        elif self.carry:
            yield Block(number, self.carry)

    def _long_line(self, number: int) -> Iterator[Line]:
        head, self.carry = self.carry, b""
        rest = self._rest(b"\r" * head.endswith(b"\r"))
        yield Line(number, head.removesuffix(b"\r"), rest, True)
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
        return _line_start(file, piece.start), _line_start(file, piece.end)


def _line_start(file: IO[bytes], place: int) -> int:
    """The first line that starts at `place` or after it."""
    if place:
        file.seek(place - 1)
        while (chunk := file.readline(CHUNK)) and not chunk.endswith(b"\n"):
            pass
    return file.tell()
