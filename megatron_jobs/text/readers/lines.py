"""JSON objects, one a line; plain, gz or zst."""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, cast

import zstandard

from megatron_jobs.text.documents import NotADocument
from megatron_jobs.text.readers import Item, Piece, ReadRules
from megatron_jobs.text.record import from_line
from megatron_jobs.text.shards import Quarantined

CHUNK = 1 << 20
HEAD = 1 << 16
"""Bytes of a quarantined line that are kept."""
DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError)


def read(piece: Piece, rules: ReadRules) -> Iterator[Item]:
    """The records of the lines that start in the piece.

    A place is FILE:LINE; in a piece that starts inside a file FILE@OFFSET.
    """
    number = 0
    with open_stream(piece) as file:
        if piece.start:
            file.seek(piece.start - 1)
            _skip_line(file)
        packed = piece.path.name.lower().endswith((".gz", ".zst"))
        while packed or file.tell() < piece.end:
            number += 1
            at = file.tell()
            place = f"{piece.path.name}@{at}" if piece.start else f"{piece.path.name}:{number}"
            try:
                line = file.readline(rules.limit + 1)
                size = len(line)
                if size > rules.limit and not line.endswith(b"\n"):
                    size += _skip_line(file)
            except DAMAGE as error:
                yield Quarantined(place, "damaged", 0, str(error).encode())
                return
            if not line:
                return
            yield _item(line, size, place, rules)


def open_stream(piece: Piece) -> IO[bytes]:
    """The bytes of a file as they were before they were packed."""
    name = piece.path.name.lower()
    if name.endswith(".gz"):
        return cast(IO[bytes], gzip.open(piece.path))
    if name.endswith(".zst"):
        file = piece.path.open("rb")
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        return io.BufferedReader(cast(io.RawIOBase, stream), CHUNK)
    return piece.path.open("rb", CHUNK)


def _item(line: bytes, size: int, place: str, rules: ReadRules) -> Item:
    if size > rules.limit:
        return Quarantined(place, "too long", size, line[:HEAD])
    try:
        return from_line(line.removeprefix(b"\xef\xbb\xbf"), place=place, key=rules.key)
    except NotADocument as reason:
        return Quarantined(place, str(reason), size, line[:HEAD])


def _skip_line(file: IO[bytes]) -> int:
    """Go behind the next line end; bytes passed."""
    passed = 0
    while chunk := file.readline(CHUNK):
        passed += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return passed
