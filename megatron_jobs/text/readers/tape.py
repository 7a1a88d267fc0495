"""A stream of chunks, of which only what is looked at is held."""

import re
from collections.abc import Iterator

from megatron_jobs.text.members import Chunk, Gap


class Tape:
    """Bytes with a place of reading, up to the end or to a gap."""

    def __init__(self, chunks: Iterator[Chunk | Gap], total: int | None = None) -> None:
        self.chunks = chunks
        self.total = total
        """Bytes of the stream, where that is known before."""
        self.data = bytearray()
        self.pos = 0
        """Of reading, in `data`."""
        self.dropped = 0
        """Bytes of the stream before `data`."""
        self.gap: Gap | None = None
        """What ended it, once it was met."""
        self.member = -1
        """Where the member of the last chunk begins."""

    @property
    def at(self) -> int:
        """The place of reading, from the beginning of the stream."""
        return self.dropped + self.pos

    def need(self, size: int) -> bool:
        """Whether `size` bytes are left; reads on for them."""
        while len(self.data) - self.pos < size:
            chunk = None if self.gap else next(self.chunks, None)
            if isinstance(chunk, Gap):
                self.gap = chunk
            if chunk is None or isinstance(chunk, Gap):
                return False
            if self.pos:
                del self.data[: self.pos]
                self.dropped, self.pos = self.at, 0
            self.data += chunk.data
            self.member = chunk.at
        return True

    def may_have(self, size: int) -> bool:
        """Whether `size` bytes may be left, by what is known without reading."""
        return self.total is None or self.at + size <= self.total

    def drain(self) -> None:
        """Read what is left of the stream, and forget it."""
        while self.gap is None and self.need(1):
            self.pos = len(self.data)

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, or as many as there are."""
        self.need(size)
        return bytes(self.data[self.pos : self.pos + size])

    def starts(self, word: bytes) -> bool:
        """Whether `word` comes next."""
        return self.peek(len(word)) == word

    def move(self, size: int) -> int:
        """Go `size` bytes on, without holding them; returns those that were there."""
        left = size
        while left and self.need(1):
            step = min(left, len(self.data) - self.pos)
            self.pos, left = self.pos + step, left - step
        return size - left

    def pass_by(self, size: int, pattern: re.Pattern[bytes], overlap: int = 32) -> int:
        """Go `size` bytes on, or to where a match begins before that, without holding them; returns
        how far. `overlap` is longer than any match and what must stand before it."""
        end = self.at + size
        while self.need(1):
            found = pattern.search(self.data, self.pos)
            if found or self.dropped + len(self.data) >= end + overlap:
                self.pos = min(found.start() if found else len(self.data), end - self.dropped)
                break
            self.pos = min(max(len(self.data) - overlap, self.pos), end - self.dropped)
            if not self.need(len(self.data) - self.pos + 1):
                self.pos = min(len(self.data), end - self.dropped)
                break
        return size - (end - self.at)

    def skip(self, letters: bytes) -> None:
        """Go on while the next byte is one of `letters`."""
        while self.need(1) and self.data[self.pos] in letters:
            self.pos += 1

    def following(self, size: int, letters: bytes, most: int) -> bytes:
        """At most `most` bytes that come `size` bytes on, behind all that are `letters`."""
        ahead = size
        while self.need(ahead + 1) and self.data[self.pos + ahead] in letters:
            ahead += 1
        self.need(ahead + most)
        return bytes(self.data[self.pos + ahead : self.pos + ahead + most])

    def find(self, pattern: re.Pattern[bytes], within: int) -> int:
        """How many bytes on the first match ends, if it does so `within` bytes; else -1."""
        size = 1 << 10
        while True:
            whole = not self.need(size)
            found = pattern.search(self.data, self.pos, self.pos + min(size, within))
            if found:
                return found.end() - self.pos
            if whole or size >= within:
                return -1
            size *= 4

    def seek(self, pattern: re.Pattern[bytes], overlap: int = 32) -> None:
        """Go to where the next match begins, or to the end; `overlap` is longer than any match."""
        while True:
            found = pattern.search(self.data, self.pos)
            if found:
                self.pos = found.start()
                return
            held = len(self.data)
            self.pos = max(held - overlap, self.pos)
            if not self.need(len(self.data) - self.pos + 1):
                self.pos = len(self.data)
                return
