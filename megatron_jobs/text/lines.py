"""Lines of a piece of a file, with a limit on what is held in memory."""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from megatron_jobs.errors import DataError
from megatron_jobs.text.sources import Piece

CHUNK = 1 << 20
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


def read_lines(piece: Piece, limit: int) -> Iterator[Line]:
    """The lines that start in `piece`; those over `limit` bytes come in chunks.

    Raises: DataError when a gzip file is damaged.
    """
    path = piece.file.path
    try:
        with _open(piece) as file:
            if piece.file.whole:
                yield _whole_file(file, limit)
            else:
                end = None if piece.file.packed else piece.end
                yield from _lines_from(file, piece.start, end, limit)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip: {error}") from error


def _open(piece: Piece) -> IO[bytes]:
    if piece.file.packed:
        return cast(IO[bytes], gzip.open(piece.file.path))
    return piece.file.path.open("rb", CHUNK)


def _whole_file(file: IO[bytes], limit: int) -> Line:
    head = file.read(limit + 1)
    rest = iter(lambda: file.read(CHUNK), b"")
    return Line(1, head.removeprefix(BOM), rest, len(head) > limit)


def _lines_from(file: IO[bytes], start: int, end: int | None, limit: int) -> Iterator[Line]:
    _seek_line_start(file, start)
    number = 0
    first = start == 0
    while end is None or file.tell() < end:
        head = file.readline(limit + len(b"\r\n"))
        if not head:
            return
        number += 1
        body = _without_end(head).removeprefix(BOM if first else b"")
        first = False
        rest = iter(()) if head.endswith(b"\n") else _rest_of_line(file)
        yield Line(number, body, rest, len(body) > limit)
        for _ in rest:  # a consumer may not want it
            pass


def _rest_of_line(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.readline(CHUNK):
        yield _without_end(chunk)
        if chunk.endswith(b"\n"):
            return


def _without_end(line: bytes) -> bytes:
    return line[:-1].removesuffix(b"\r") if line.endswith(b"\n") else line


def _seek_line_start(file: IO[bytes], start: int) -> None:
    """Go to the first line that starts at `start` or after it."""
    if start:
        file.seek(start - 1)
        for _ in _rest_of_line(file):
            pass
