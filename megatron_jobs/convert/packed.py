"""Bytes that are kept compressed until they are read."""

import zlib
from collections.abc import Iterator

import numpy as np

from megatron_jobs.convert.matrix import PIECE, Array, Matrix

LEVEL = 1
"""Of zlib: what says the same words again and again shrinks at the quickest one too."""


class Packing:
    """Takes bytes as they are made."""

    def __init__(self) -> None:
        self.bytes = 0
        self._made = bytearray()
        self._left = bytearray()
        self._packer = zlib.compressobj(LEVEL)

    def add(self, data: bytes) -> None:
        """Put them behind all others."""
        self._left += data
        if len(self._left) >= PIECE:
            self._pack()

    def matrix(self) -> "Packed":
        """All of them; nothing can be added then."""
        self._pack()
        self._made += self._packer.flush()
        return Packed(bytes(self._made), self.bytes)

    def _pack(self) -> None:
        self.bytes += len(self._left)
        self._made += self._packer.compress(self._left)
        self._left.clear()


class Packed(Matrix):
    """Bytes [R], one to a row, out of what zlib made of them."""

    __slots__ = ("packed",)

    def __init__(self, packed: bytes, count: int) -> None:
        self.packed, self.shape, self.dtype = packed, (count,), np.dtype(np.uint8)

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are made, from the first byte on whatever is asked for."""
        unpacker, left, end = zlib.decompressobj(), self.packed, 0
        while end < stop:
            made = np.frombuffer(unpacker.decompress(left, PIECE), np.uint8)
            assert made.size, f"{end} bytes were packed, not {self.rows}"
            left, begin, end = unpacker.unconsumed_tail, end, end + len(made)
            if end > start:
                yield made[max(0, start - begin) : stop - begin].reshape(-1, 1)
