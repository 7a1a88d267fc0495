"""Bytes of files, packed or not, in chunks; those before a damage are given all the same."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

CHUNK = 1 << 20
GZIP, ZSTD = ".gz", ".zst"
PACKED = (GZIP, ZSTD)
GZIP_FORMAT = 31
"""Of zlib: a gzip header, a window of 32 KiB."""
ZSTD_INPUT = 1 << 12
"""Bytes unpacked at a time: they may become 32,768 times as many."""


class DamagedFileError(Exception):
    """A packed file is cut short or is not what its name says; a few words, equal for a kind."""


def read_chunks(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The content of a file, unpacked; of one that is not packed, its bytes in [start, end).

    Raises: DamagedFileError, after all that could be read.
    """
    with path.open("rb", buffering=0) as file:
        if path.name.endswith(GZIP):
            yield from _gunzip(file)
        elif path.name.endswith(ZSTD):
            yield from _unzstd(file)
        else:
            yield from _plain(file, start, end)


def _plain(file: IO[bytes], start: int, end: int | None) -> Iterator[bytes]:
    file.seek(start)
    left = CHUNK if end is None else end - start
    while left and (chunk := file.read(min(left, CHUNK))):
        yield chunk
        left -= 0 if end is None else len(chunk)


def _gunzip(file: IO[bytes]) -> Iterator[bytes]:
    """Members one after the other; zeros after the last are padding, as gzip has it."""
    unpack = zlib.decompressobj(GZIP_FORMAT)
    begun = padded = False
    while packed := file.read(CHUNK >> 2):
        while packed := packed.lstrip(b"\0") if padded else packed:
            begun, padded = True, False
            try:
                yield unpack.decompress(packed, CHUNK)
            except zlib.error:
                raise DamagedFileError("damaged gzip") from None
            packed = unpack.unconsumed_tail or unpack.unused_data
            if unpack.eof:
                unpack, begun, padded = zlib.decompressobj(GZIP_FORMAT), False, True
    if begun:
        yield unpack.flush()  # what had no room before
    if begun and not unpack.eof:
        raise DamagedFileError("gzip cut short")


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    """Frames one after the other."""
    import zstandard

    unpack = zstandard.ZstdDecompressor().decompressobj()
    begun = False
    while packed := file.read(ZSTD_INPUT):
        while packed:
            begun = True
            try:
                yield unpack.decompress(packed)
            except zstandard.ZstdError:
                raise DamagedFileError("damaged zstd") from None
            packed = unpack.unused_data if unpack.eof else b""
            if unpack.eof:
                unpack, begun = zstandard.ZstdDecompressor().decompressobj(), False
    if begun:
        raise DamagedFileError("zstd cut short")
