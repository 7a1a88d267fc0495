"""Zip archives as torch writes them, found in the bytes of a file: nothing is unpacked.

torch stores every entry without compression, so that an entry is a stretch of the file. Whatever
else a zip may be is refused: then it is not torch's, or it was made to be read in two ways.

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.6 to 4.3.16, 4.5.3.
"""

import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

END, END_MARK = struct.Struct("<4s4H2IH"), b"PK\x05\x06"
FAR_POINTER, FAR_POINTER_MARK = struct.Struct("<4sIQI"), b"PK\x06\x07"
FAR_END, FAR_END_MARK = struct.Struct("<4sQ2H2I4Q"), b"PK\x06\x06"
ENTRY, ENTRY_MARK = struct.Struct("<4s6H3I5H2I"), b"PK\x01\x02"
LOCAL, LOCAL_MARK = struct.Struct("<4s5H3I2H"), b"PK\x03\x04"
FAR_FIELD = 1
FULL_32, FULL_16 = 0xFFFFFFFF, 0xFFFF
ENCRYPTED = 1
MOST_ENTRIES = 2_000_000


@dataclass(frozen=True)
class Entry:
    """A file of the archive."""

    name: str
    start: int
    """Where its bytes begin in the file that holds the archive."""
    size: int
    checksum: int


@dataclass(frozen=True)
class Directory:
    """Where the table of entries stands in the archive."""

    start: int
    size: int
    count: int


def read_zip(data: mmap.mmap, start: int, size: int) -> dict[str, Entry]:
    """The entries of the archive that is `size` bytes from `start` of a mapped file.

    Raises: ValueError, in words, for an archive that is cut short, compressed, encrypted, in
        parts, whose sizes lie, whose entries overlap or whose names climb out.
    """
    if not 0 <= start <= start + size <= len(data):
        raise ValueError(f"ends at {len(data):,} bytes, its archive at {start + size:,}")
    where = _directory(data, start, size)
    entries: dict[str, Entry] = {}
    for entry in _entries(data, start, where):
        if entry.name in entries:
            raise ValueError(f"its archive holds {entry.name!r} twice")
        entries[entry.name] = entry
    _check_apart(list(entries.values()), start + where.start)
    return entries


def is_whole(data: mmap.mmap, entry: Entry) -> bool:
    """Whether the bytes of an entry are those that were written."""
    return zlib.crc32(data[entry.start : entry.start + entry.size]) == entry.checksum


def _unpack(
    form: struct.Struct, mark: bytes, data: mmap.mmap, at: int, end: int
) -> tuple[int, ...]:
    """The fields of a header but for its mark."""
    if not 0 <= at <= at + form.size <= end:
        raise ValueError("its archive is cut short or its sizes lie")
    found = form.unpack_from(data, at)
    if found[0] != mark:
        raise ValueError("its archive is cut short or its sizes lie")
    return found[1:]


def _directory(data: mmap.mmap, start: int, size: int) -> Directory:
    """Read from the end; torch writes no comment there."""
    end = start + size
    at = end - END.size
    disk, first, here, count, length, offset, comment = _unpack(END, END_MARK, data, at, end)
    if disk or first or here != count or comment:
        raise ValueError("its archive is in parts or has a comment; torch's has neither")
    if FULL_32 in (length, offset) or count == FULL_16:
        at -= FAR_POINTER.size
        _, far, _ = _unpack(FAR_POINTER, FAR_POINTER_MARK, data, max(at, start), end)
        at = start + far
        fields = _unpack(FAR_END, FAR_END_MARK, data, at, end)
        disk, first, here, count, length, offset = fields[3:]
        if disk or first or here != count:
            raise ValueError("its archive is in parts")
    if offset + length > at - start or count > MOST_ENTRIES or count * ENTRY.size > length:
        raise ValueError("its archive is cut short or its sizes lie")
    return Directory(offset, length, count)


def _entries(data: mmap.mmap, start: int, where: Directory) -> Iterator[Entry]:
    at, end = start + where.start, start + where.start + where.size
    for _ in range(where.count):
        fields = _unpack(ENTRY, ENTRY_MARK, data, at, end)
        flags, method, checksum, packed, size = fields[2], fields[3], *fields[6:9]
        name_size, extra_size, comment_size, offset = *fields[9:12], fields[15]
        at += ENTRY.size
        if at + name_size + extra_size + comment_size > end:
            raise ValueError("its archive is cut short or its sizes lie")
        raw = data[at : at + name_size]
        extra = data[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment_size
        size, packed, offset = _far([size, packed, offset], extra)
        name = _name(raw)
        if method or flags & ENCRYPTED or packed != size:
            raise ValueError(f"its archive holds {name!r} compressed or encrypted; torch's are not")
        yield Entry(name, _begin(data, start, offset, raw, start + where.start), size, checksum)


def _far(sizes: list[int], extra: bytes) -> list[int]:
    """Sizes that do not fit in 32 bits stand in a field of their own."""
    numbers: Iterator[tuple[int]] = iter(())
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == FAR_FIELD:
            field = extra[at + 4 : at + 4 + length]
            numbers = struct.iter_unpack("<Q", field[: len(field) // 8 * 8])
        at += 4 + length
    found = []
    for size in sizes:
        (size,) = next(numbers, (-1,)) if size == FULL_32 else (size,)
        if size < 0:
            raise ValueError("its archive lacks a size")
        found.append(size)
    return found


def _name(raw: bytes) -> str:
    name = raw.decode("utf-8", "strict")
    climbs = ".." in name.split("/") or name.startswith("/")
    if climbs or "\\" in name or "\0" in name or ":" in name:
        raise ValueError(f"its archive holds {name!r}, a name that climbs out")
    return name


def _begin(data: mmap.mmap, start: int, offset: int, name: bytes, end: int) -> int:
    """Where an entry's bytes begin: after a header that must be of the same name."""
    at = start + offset
    fields = _unpack(LOCAL, LOCAL_MARK, data, at, end)
    begin = at + LOCAL.size
    if fields[2] or data[begin : begin + fields[8]] != name:
        raise ValueError(f"its archive has two headers for {name[:100]!r} that differ")
    return begin + fields[8] + fields[9]


def _check_apart(entries: list[Entry], end: int) -> None:
    entries.sort(key=lambda entry: entry.start)
    before = 0
    for entry in entries:
        if entry.start < before or entry.start + entry.size > end:
            raise ValueError(f"its archive holds {entry.name!r} at a place of something else")
        before = entry.start + entry.size
