"""A sample of documents that fits in memory and does not depend on their order.

A document is known by a 64-bit hash of its text. Whenever the sample grows over its limit, the half
with the higher hashes goes: in the end those are left whose hash is below one power of two.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from numpy.typing import NDArray

KEY_BITS = 64
OTHER_BITS = 0x9E3779B97F4A7C15
"""Odd: makes a hash of a hash, so that what is held out is independent of what is sampled."""


def text_key(text: str) -> int:
    """64 bits, equal for equal texts only (but for one chance in 2^64 a pair)."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def is_held_out(key: int, share: float) -> bool:
    """Whether a document is one of the `share` of all that a model must not learn from."""
    return (key * OTHER_BITS) % (1 << KEY_BITS) < share * (1 << KEY_BITS)


class HashedSample:
    """Arrays by the key of their document, at most `limit` items in all of them together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.halvings = 0
        self.items = 0
        self.duplicates = 0
        """Documents whose text was there already."""
        self._arrays: dict[int, NDArray[Any]] = {}

    def wants(self, key: int) -> bool:
        """Whether a document would be taken; it need not be looked at otherwise."""
        if key in self._arrays:
            self.duplicates += 1
            return False
        return key >> (KEY_BITS - self.halvings) == 0

    def add(self, key: int, array: NDArray[Any]) -> None:
        """Take a document that is wanted."""
        self._arrays[key] = array
        self.items += len(array)
        while self.items > self.limit and len(self._arrays) > 1:
            self.halvings += 1
            shift = KEY_BITS - self.halvings
            self._arrays = {k: a for k, a in self._arrays.items() if k >> shift == 0}
            self.items = sum(len(a) for a in self._arrays.values())

    def remove(self, key: int) -> None:
        """Do without a document, if it is there."""
        array = self._arrays.pop(key, None)
        self.items -= 0 if array is None else len(array)

    @property
    def share(self) -> float:
        """Of the documents, how many were to be taken."""
        return 0.5**self.halvings

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, key: int) -> bool:
        return key in self._arrays

    def sorted(self) -> Iterator[tuple[int, NDArray[Any]]]:
        """(key, array) in the order of the keys."""
        yield from sorted(self._arrays.items(), key=lambda pair: pair[0])
