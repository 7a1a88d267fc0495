"""What torch.save writes, byte for byte but for an id: a zip archive that stores without packing.

The CRC-32 of a tensor's bytes stands behind them, so that they can be written as they are read.

Source: torch, caffe2/serialize/inline_container.cc (order of entries, padding to 64 bytes), and
PKWARE's APPNOTE.TXT 6.3, sections 4.3 and 4.4.
"""

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from megatron_jobs.convert.files import Item
from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.convert.pickle_out import Made, Name, Persistent, pickled

ALIGNMENT = 64
MOST_BYTES = (1 << 32) - 1
"""Of an archive: more needs other records, which nothing here makes."""
LOCAL = struct.Struct("<4sHHHHHIIIHH")
DESCRIPTOR = struct.Struct("<4sIII")
CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
END64 = struct.Struct("<4sQHHIIQQQQ")
LOCATOR = struct.Struct("<4sIQI")
END = struct.Struct("<4sHHHHIIH")
FLAGS = 0x0808
"""Sizes and CRC-32 follow the bytes; names are UTF-8."""
PREFIX = "archive/"
SERIALIZATION_ID = b"0" * 40
"""torch writes hashes here; nothing reads them."""
STORAGES: dict[np.dtype[np.generic], str] = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
    np.dtype(np.int16): "ShortStorage",
    np.dtype(np.int8): "CharStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
}


@dataclass(frozen=True)
class _Entry:
    """A file of the archive."""

    name: bytes
    size: int
    crc: int
    offset: int


class _Archive:
    """An archive as far as it is made. The bytes of one entry may lie elsewhere."""

    def __init__(self) -> None:
        self.made = bytearray()
        self.elsewhere = 0
        self.entries: list[_Entry] = []

    @property
    def at(self) -> int:
        """Bytes so far."""
        return len(self.made) + self.elsewhere

    def begin(self, name: str) -> int:
        """Write the header of an entry, so that its bytes are aligned; gives where it begins."""
        path, at = (PREFIX + name).encode(), self.at
        padding = -(at + LOCAL.size + len(path) + 4) % ALIGNMENT
        extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
        self.made += LOCAL.pack(b"PK\3\4", 0, FLAGS, 0, 0, 0, 0, 0, 0, len(path), len(extra))
        self.made += path + extra
        return at

    def end(self, name: str, offset: int, size: int, crc: int) -> None:
        """Write what follows the bytes of an entry."""
        self.made += DESCRIPTOR.pack(b"PK\7\b", crc, size, size)
        self.entries.append(_Entry((PREFIX + name).encode(), size, crc, offset))

    def add(self, name: str, data: bytes) -> None:
        """Write a small entry."""
        offset = self.begin(name)
        self.made += data
        self.end(name, offset, len(data), zlib.crc32(data))

    def close(self) -> None:
        """Write the directory."""
        start, count = self.at, len(self.entries)
        for entry in self.entries:
            sizes = (entry.crc, entry.size, entry.size, len(entry.name), 0, 0, 0, 0, 0)
            self.made += CENTRAL.pack(b"PK\1\2", 0, 0, FLAGS, 0, 0, 0, *sizes, entry.offset)
            self.made += entry.name
        end, size = self.at, self.at - start
        made_by, needed, rest = 0x031E, 45, END64.size - 12
        self.made += END64.pack(b"PK\6\6", rest, made_by, needed, 0, 0, count, count, size, start)
        self.made += LOCATOR.pack(b"PK\6\7", 0, end, 1)
        self.made += END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0)


def object_record(value: Any) -> bytes:
    """What `torch.save` writes of plain values."""
    archive = _Archive()
    archive.add("data.pkl", pickled(value))
    _add_marks(archive)
    _add_ending(archive)
    return bytes(archive.made)


def tensor_record(matrix: Matrix, shape: tuple[int, ...] | None = None, name: str = "") -> Item:
    """What `torch.save` writes of a contiguous tensor on the CPU.

    Args:
        shape: if not its own.
        name: for errors.
    """
    before, after = _around(matrix.dtype, shape or matrix.shape)
    return Item(before, matrix, after, name)


@lru_cache(maxsize=1024)
def _around(
    dtype: np.dtype[np.generic], shape: tuple[int, ...]
) -> tuple[bytes, Callable[[int], bytes]]:
    """What stands before a tensor's bytes and behind them, which a model's layers share."""
    size = math.prod(shape) * dtype.itemsize
    archive = _Archive()
    archive.add("data.pkl", tensor_pickle(dtype, shape))
    _add_marks(archive)
    offset = archive.begin("data/0")
    before = bytes(archive.made)
    archive.elsewhere, split = size, len(before)
    archive.end("data/0", offset, size, 0)
    place = len(archive.entries) - 1
    _add_ending(archive)
    assert archive.at <= MOST_BYTES, f"{shape} is too large for one archive"
    tail = bytes(archive.made[split:])
    directory = tail.index(b"PK\1\2")
    before_it = sum(CENTRAL.size + len(entry.name) for entry in archive.entries[:place])
    places = (4, directory + before_it + 16)  # of its CRC-32, behind its bytes and in the directory

    def after(crc: int) -> bytes:
        made = bytearray(tail)
        for at in places:
            struct.pack_into("<I", made, at, crc)
        return bytes(made)

    return before, after


def _add_marks(archive: _Archive) -> None:
    archive.add(".format_version", b"1")
    archive.add(".storage_alignment", str(ALIGNMENT).encode())
    archive.add("byteorder", b"little")


def _add_ending(archive: _Archive) -> None:
    archive.add("version", b"3\n")
    archive.add(".data/serialization_id", SERIALIZATION_ID)
    archive.close()


def tensor_pickle(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """The pickle of a contiguous tensor whose storage is `0`."""
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    storage = ("storage", Name("torch", STORAGES[dtype]), "0", "cpu", math.prod(shape))
    hooks = Made(Name("collections", "OrderedDict"))
    args = (Persistent(storage), 0, shape, strides, False, hooks)
    return pickled(Made(Name("torch._utils", "_rebuild_tensor_v2"), args))
