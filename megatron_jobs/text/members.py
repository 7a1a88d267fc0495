"""Files packed as gzip or zstd, member by member: a damage costs its member, not the file.

gzip calls them members, zstd frames; crawls give each record one of its own. Where one cannot be
unpacked the next is looked for, by its first bytes, and reading goes on there.

Sources: RFC 1952; RFC 8878, section 3; "WARC file compression with Zstandard" of the IIPC (a
dictionary for all frames may stand in a skippable frame in front).
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # it takes 10 ms to import, and few need it
    import zstandard

PACKED = (".gz", ".zst", ".zstd")
CHUNK = 1 << 20
"""Bytes handed on at most, about."""
STEP = 1 << 16
"""Packed bytes read at once."""
BEHIND = 1 << 17
"""Packed bytes kept behind the place of reading: what is damaged may be noticed after the next
member has begun, at most a stored block (65,535 bytes) later."""
PROBE = 1 << 10
"""Packed bytes that must unpack before something counts as the beginning of a member."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes as they were before they were packed."""

    data: bytes
    at: int
    """Where the member begins in the packed file; of a plain file, where `data` begins."""
    first: bool
    """Whether `data` is how the member begins."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Packed bytes that cannot be read."""

    at: int
    size: int
    """From where the member began to the next that can be read, or the end."""
    reason: str
    """`damaged`, or `cut short` when the file ends in a member."""


class Format(Protocol):
    """One member being unpacked."""

    MAGIC: bytes
    SLICE: int
    """Packed bytes unpacked at once, so that little memory is taken whatever they become."""

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """What comes out; raises `Broken`."""
        ...

    @property
    def unused(self) -> int:
        """Bytes that `feed` was given and that stand behind the member's end; -1 before it."""
        ...


class Broken(Exception):
    """No member can be read here."""


class Gzip:
    """A member of gzip."""

    MAGIC = b"\x1f\x8b\x08"
    SLICE = STEP

    def __init__(self) -> None:
        self.inner = zlib.decompressobj(31)

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """See `Format`."""
        try:
            while True:
                data = self.inner.decompress(packed, CHUNK)
                packed = self.inner.unconsumed_tail
                if data:
                    yield data
                if self.inner.eof or not (packed or len(data) == CHUNK):
                    return
        except zlib.error as error:
            raise Broken(str(error)) from None

    @property
    def unused(self) -> int:
        """See `Format`."""
        return len(self.inner.unused_data) if self.inner.eof else -1


class Zstd:
    """A frame of zstd; those that are to be skipped give nothing."""

    MAGIC = b"\x28\xb5\x2f\xfd"
    SLICE = 1 << 10
    """A block of four bytes may become 128 KiB."""

    def __init__(self, dictionary: "zstandard.ZstdCompressionDict | None" = None) -> None:
        import zstandard

        self.error = zstandard.ZstdError
        self.inner = zstandard.ZstdDecompressor(dict_data=dictionary).decompressobj()

    def feed(self, packed: bytes) -> Iterator[bytes]:
        """See `Format`."""
        try:
            if data := self.inner.decompress(packed):
                yield data
        except self.error as error:
            raise Broken(str(error)) from None

    @property
    def unused(self) -> int:
        """See `Format`."""
        return len(self.inner.unused_data) if self.inner.eof else -1


def unpack(file: IO[bytes], name: str) -> Iterator[Chunk | Gap]:
    """All of a file; `name` says by its end how it is packed. Memory is bounded."""
    name = name.lower()
    if name.endswith(PACKED):
        yield from _Members(file, zstd=not name.endswith(".gz")).all()
        return
    at = 0
    while data := file.read(CHUNK):
        yield Chunk(data, at, at == 0)
        at += len(data)


def unpack_part(file: IO[bytes], start: int, end: int, head: bytes) -> Iterator[Chunk | Gap]:
    """Of a file packed as gzip, what lies from the first member in [start, end) that begins with
    `head` to the first such member at or behind `end`; from the beginning when `start` is 0.

    Parts of a file that lie side by side give each byte once, damaged ones too.
    """
    members = _Members(file, zstd=False)
    if start:
        members.go_to(start)
        if not members.seek_head(end, head):
            return
    yield from members.all(end, head)


class _Members:
    """A window of packed bytes that moves over the file."""

    def __init__(self, file: IO[bytes], *, zstd: bool) -> None:
        self.file, self.zstd = file, zstd
        self.dictionary: zstandard.ZstdCompressionDict | None = None
        self.window, self.base, self.pos = b"", 0, 0

    @property
    def at(self) -> int:
        """The place of reading, in the packed file."""
        return self.base + self.pos

    def all(self, end: int | None = None, head: bytes = b"") -> Iterator[Chunk | Gap]:
        """The members in order, to the first at or behind `end` that begins with `head`."""
        while self._more():
            if self.zstd and self._skippable():
                continue
            if not self.zstd and (zeros := self._zeros()):
                if self._more():  # else they fill the file up, as gzip(1) has it
                    yield Gap(self.at - zeros, zeros, "damaged")
                continue
            if end is not None and self.at >= end and self._starts_here(head):
                return
            yield from self._member()

    def go_to(self, place: int) -> None:
        """Read on from this place of the packed file."""
        self.file.seek(place)
        self.window, self.base, self.pos = b"", place, 0

    def seek_head(self, end: int, head: bytes) -> bool:
        """Go to the next member before `end` that begins with `head`; whether there is one."""
        return self._seek(head, end) and self.at < end

    def _more(self, wanted: int = 1) -> bool:
        """Whether `wanted` bytes stand at the place of reading; reads on for them."""
        while len(self.window) - self.pos < wanted:
            data = self.file.read(max(STEP, wanted))
            if not data:
                return False
            drop = max(self.pos - BEHIND, 0)
            self.window = self.window[drop:] + data
            self.base, self.pos = self.base + drop, self.pos - drop
        return True

    def _begin(self) -> Format:
        return Zstd(self.dictionary) if self.zstd else Gzip()

    def _member(self) -> Iterator[Chunk | Gap]:
        start, member, first = self.at, self._begin(), True
        try:
            while member.unused < 0:
                if not self._more():
                    yield self._gap(start, "cut short")
                    return
                packed = self.window[self.pos : self.pos + member.SLICE]
                self.pos += len(packed)
                for data in member.feed(packed):
                    yield Chunk(data, start, first)
                    first = False
            self.pos -= member.unused
        except Broken:
            yield self._gap(start, "damaged")

    def _gap(self, start: int, reason: str) -> Gap:
        """From a member that cannot be read to where the next begins, or to the end. A member of
        which the end is missing may take those behind it for its own until the file ends."""
        self.pos = max(start + 1, self.base) - self.base
        found = self._seek()
        return Gap(start, self.at - start, "damaged" if found else reason)

    def _seek(self, head: bytes = b"", end: int | None = None) -> bool:
        """Go to the next member that begins with `head`, or to the end; look no further than
        `end`, about. Whether there is one."""
        magic = self._begin().MAGIC
        while (end is None or self.at < end) and (self._more(PROBE) or self._more(len(magic))):
            found = self.window.find(magic, self.pos)
            if found < 0:
                self.pos = len(self.window) - len(magic) + 1
                continue
            self.pos = found
            if self._starts_here(head):
                return True
            self.pos += 1
        self.pos = len(self.window)
        return False

    def _starts_here(self, head: bytes = b"") -> bool:
        """Whether the first bytes here can be unpacked, and begin with `head`."""
        self._more(PROBE)
        data = b""
        try:
            for part in self._begin().feed(self.window[self.pos : self.pos + PROBE]):
                data = data or part
        except Broken:
            return False
        return data.startswith(head)

    def _zeros(self) -> int:
        """Pass zeros, and count them."""
        start = self.at
        while self._more() and self.window[self.pos] == 0:
            self.pos = len(self.window) - len(self.window[self.pos :].lstrip(b"\0"))
        return self.at - start

    def _skippable(self) -> bool:
        """Pass a frame that is to be skipped; keep the dictionary when it is one."""
        if not self._more(8) or self.window[self.pos + 1 : self.pos + 4] != b"\x2a\x4d\x18":
            return False
        kind = self.window[self.pos]
        if kind & 0xF0 != 0x50:
            return False
        size = int.from_bytes(self.window[self.pos + 4 : self.pos + 8], "little")
        if kind == 0x5D and self.at == 0 and size < (1 << 26) and self._more(8 + size):
            self.dictionary = _dictionary(self.window[self.pos + 8 : self.pos + 8 + size])
        left = 8 + size
        while left and self._more():
            step = min(left, len(self.window) - self.pos)
            self.pos, left = self.pos + step, left - step
        return True


def _dictionary(data: bytes) -> "zstandard.ZstdCompressionDict | None":
    """It may itself be packed."""
    import zstandard

    try:
        if data.startswith(Zstd.MAGIC):
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        return zstandard.ZstdCompressionDict(data)
    except zstandard.ZstdError:
        return None
