"""GGUF files: a header that is believed in nothing, and tensors as views of the mapped file.

Source of the format: ggml/docs/gguf.md. Numbers are little-endian, dimensions innermost first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.convert.gguf_kinds import BY_NUMBER, PLAIN, Bytes, Dequantised, Kind
from megatron_jobs.convert.matrix import Matrix, Stored
from megatron_jobs.errors import DataError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
"""Bytes, where the metadata says nothing."""
NUMBERS: dict[int, np.dtype[np.generic]] = {
    number: np.dtype(code)
    for number, code in enumerate(["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "u1"])
} | {10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8")}
"""Type of a value -> its numbers."""
FLOAT32, BOOL, STRING, ARRAY = 6, 7, 8, 9
SMALLEST_VALUE, SMALLEST_TENSOR = 13, 32
"""Bytes of the shortest key with its value, and of the shortest tensor's line."""
MOST_DIMENSIONS = 4
MOST_NAME = 1 << 16
"""Bytes of a key or a tensor's name."""


class Texts(Sequence[str]):
    """Strings of a file, decoded when they are asked for.

    Args:
        places: int64 [count, 2], where each lies.
    """

    def __init__(self, data: Bytes, places: NDArray[np.int64]) -> None:
        self.data, self.places = data, places

    def __len__(self) -> int:
        """How many."""
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Bytes that are no UTF-8 become U+FFFD, as a vocabulary may hold them."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        start, stop = self.places[index]
        return bytes(self.data[start:stop]).decode(errors="replace")


@dataclass(frozen=True)
class GGUFFile:
    """What lies in a file, by the file's own names."""

    path: Path
    metadata: dict[str, Any]
    """Numbers, str, numpy arrays of numbers, `Texts`."""
    tensors: dict[str, Matrix]
    """[outermost, ..., innermost], as numpy counts."""
    kinds: dict[str, str]
    """The format of each tensor: `Q8_0`."""
    further: tuple[Path, ...] = ()
    """Of a model in several files: the others."""


def read_gguf(path: Path) -> GGUFFile:
    """The header of a file, and its tensors to be read by rows.

    Raises: DataError when anything of it cannot be true.
    """
    if not path.is_file() or path.stat().st_size < 24:
        raise DataError(f"{path}: no file of GGUF, which has 24 bytes or more")
    header = _Header(path, np.memmap(path, np.uint8, "r"))
    tensors, values = header.begin()
    metadata = header.values(values)
    infos = header.tensors(tensors)
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise DataError(f"{path}: general.alignment: found {alignment!r}, no power of two")
    start = -(-header.at // alignment) * alignment
    _check_places(path, infos, start, header.size, alignment)
    made = {info.name: _matrix(header.data, info, start) for info in infos}
    return GGUFFile(path, metadata, made, {info.name: info.kind.name for info in infos})


@dataclass(frozen=True)
class _Info:
    """A tensor's line in the header."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    offset: int

    @property
    def bytes(self) -> int:
        return self.kind.row_bytes(self.shape[-1]) * math.prod(self.shape[:-1])


class _Header:
    """Walks through a header, and never past the file's end."""

    def __init__(self, path: Path, data: Bytes) -> None:
        self.path, self.data, self.size, self.at = path, data, len(data), 0

    def begin(self) -> tuple[int, int]:
        """(tensors, values), as the first bytes count them."""
        if bytes(self.take(4)) != MAGIC:
            found = bytes(self.data[:4])
            raise DataError(f"{self.path}: begins with {found!r}, not with {MAGIC!r}")
        version = self.number("<u4")
        if version not in VERSIONS:
            turned = " (written for a big-endian machine)" if version in (2 << 24, 3 << 24) else ""
            raise DataError(f"{self.path}: version {version}{turned}: versions 2 and 3 are read")
        tensors, values = self.number("<u8"), self.number("<u8")
        self.check_room(tensors * SMALLEST_TENSOR, f"{tensors} tensors")
        self.check_room(values * SMALLEST_VALUE, f"{values} values")
        return tensors, values

    def take(self, count: int) -> Bytes:
        """The next bytes."""
        self.check_room(count, f"{count} bytes")
        self.at += count
        return self.data[self.at - count : self.at]

    def check_room(self, count: int, what: str) -> None:
        """Raise DataError unless that many bytes are left."""
        if count > self.size - self.at:
            left = f"{self.size - self.at} bytes are left"
            raise DataError(f"{self.path}: byte {self.at}: names {what}, {left}")

    def number(self, code: str) -> int:
        """The next whole number."""
        kind = np.dtype(code)
        return int.from_bytes(self.take(kind.itemsize).tobytes(), "little", signed=kind.kind == "i")

    def text(self, most: int | None = None) -> str:
        """The next string; DataError when it is no UTF-8, or over `most` bytes."""
        start, count = self.at, self.number("<u8")
        if most is not None and not 1 <= count <= most:
            raise DataError(f"{self.path}: byte {start}: a name of {count} bytes")
        try:
            return self.take(count).tobytes().decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}: byte {start}: no UTF-8: {error}") from error

    def values(self, count: int) -> dict[str, Any]:
        """The metadata."""
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.text(MOST_NAME)
            if key in found:
                raise DataError(f"{self.path}: metadata {key!r} twice")
            found[key] = self.value(self.number("<u4"), key)
        return found

    def value(self, kind: int, key: str) -> Any:
        """One value of the metadata; fp32 as the shortest decimal that means it."""
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self.array(key)
        if kind not in NUMBERS:
            raise DataError(f"{self.path}: {key}: a value of type {kind}; there are 0 to 12")
        number = self.take(NUMBERS[kind].itemsize).view(NUMBERS[kind])[0]
        if kind == BOOL:
            return bool(number)
        return float(str(number)) if kind == FLOAT32 else number.item()

    def array(self, key: str) -> Any:
        """Numbers, or strings."""
        kind, count = self.number("<u4"), self.number("<u8")
        if kind == STRING:
            return self.texts(count)
        if kind not in NUMBERS:
            raise DataError(f"{self.path}: {key}: an array of type {kind}; numbers and strings do")
        dtype = NUMBERS[kind]
        self.check_room(count * dtype.itemsize, f"{count} numbers")
        return self.take(count * dtype.itemsize).view(dtype)

    def texts(self, count: int) -> Texts:
        """Strings, that are passed over."""
        self.check_room(count * 8, f"{count} strings")
        places = np.empty((count, 2), np.int64)
        for row in range(count):
            size = self.number("<u8")
            places[row, 0] = self.at
            self.take(size)
            places[row, 1] = self.at
        return Texts(self.data, places)

    def tensors(self, count: int) -> list[_Info]:
        """The line of each tensor."""
        found: dict[str, _Info] = {}
        for _ in range(count):
            info = self.info()
            if info.name in found:
                raise DataError(f"{self.path}: tensor {info.name!r} twice")
            found[info.name] = info
        return list(found.values())

    def info(self) -> _Info:
        """The next tensor's line."""
        name = self.text(MOST_NAME)
        dimensions = self.number("<u4")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise DataError(f"{self.path}: {name}: {dimensions} dimensions; there are 1 to 4")
        shape = tuple(self.number("<u8") for _ in range(dimensions))[::-1]
        number, offset = self.number("<u4"), self.number("<u8")
        if number not in BY_NUMBER:
            raise DataError(f"{self.path}: {name}: format {number}, which is not known")
        kind = BY_NUMBER[number]
        if 0 in shape or shape[-1] % kind.block:
            rule = f"rows of whole blocks of {kind.block}" if kind.block > 1 else "no empty ones"
            raise DataError(f"{self.path}: {name}: {list(shape)} of {kind.name}; {rule}")
        return _Info(name, shape, kind, offset)


def _check_places(path: Path, infos: list[_Info], start: int, size: int, alignment: int) -> None:
    """Raise DataError unless each tensor lies in the file, aligned, and none over another."""
    end, before = 0, ""
    for info in sorted(infos, key=lambda info: info.offset):
        place = f"{path}: {info.name}: {info.bytes} bytes at {info.offset}"
        if info.offset % alignment:
            raise DataError(f"{place}, which is no multiple of {alignment}")
        if start + info.offset + info.bytes > size:
            raise DataError(f"{place}; {max(0, size - start)} bytes of tensors are in the file")
        if info.offset < end:
            raise DataError(f"{place} lie over {before}")
        end, before = info.offset + info.bytes, info.name


def _matrix(data: Bytes, info: _Info, start: int) -> Matrix:
    view = data[start + info.offset : start + info.offset + info.bytes]
    if info.kind.name in PLAIN:
        return Stored(view.view(PLAIN[info.kind.name]).reshape(info.shape))
    rows = math.prod(info.shape[:-1]) if len(info.shape) > 1 else info.shape[0] // info.kind.block
    return Dequantised(Stored(view.reshape(rows, -1)), info.kind, info.shape)
