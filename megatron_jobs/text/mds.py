"""Shards of MosaicML's streaming format (MDS), version 2.

    index.json   {"version": 2, "shards": [{"format": "mds", "column_names", "column_encodings",
                 "column_sizes", "compression", "hashes", "raw_data", "zip_data", "samples",
                 "size_limit", "version": 2}]}; raw_data and zip_data are {"basename", "bytes",
                 "hashes"}, zip_data null when the shard is not packed
    a shard      uint32 samples N, uint32 [N + 1] where each sample begins and the last ends, the
                 columns as JSON, the samples; little endian
    a sample     uint32 sizes of its columns of no fixed size, then the values of all, by name

Encodings: str (UTF-8), json, bytes, int and the fixed numbers; ndarray[:DTYPE[:SHAPE]] (a byte for
the type where it is not given; where the shape is not, a byte of 4 x axes + the type of lengths,
and the lengths; the values). Pickles are never opened: they would run code.

Source: the format of mosaicml-streaming 0.13, streaming/base/format/mds.
"""

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
import zstandard

from megatron_jobs.runtime.files import whole_file

INDEX = "index.json"
FIXED = {
    "int": "<i8", "int8": "i1", "int16": "<i2", "int32": "<i4", "int64": "<i8",
    "uint8": "u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8",
    "float16": "<f2", "float32": "<f4", "float64": "<f8",
}  # fmt: skip
ARRAY_TYPES = {
    8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32",
    33: "int32", 34: "float32", 64: "uint64", 65: "int64", 66: "float64",
}  # fmt: skip
"""Of the values of an array, by the byte before it."""
SHAPE_TYPES = ("u1", "<u2", "<u4", "<u8")
"""Of the lengths of an array, by the low two bits of its first byte."""
MOST_BYTES = 1 << 26
"""Of a shard's samples, as the library has it; offsets are uint32."""
MOST_SAMPLES = 1 << 25
"""Of a shard that is read: where they begin is held in memory, 128 MiB."""
MOST_COLUMNS = 1 << 20
"""Bytes of what a shard says of its columns."""
Row = dict[str, Any]
Column = tuple[str, str, int | None]
"""(name, encoding, bytes of its values where that is fixed)."""


class NotMds(ValueError):
    """Why a file is no shard, or a sample no row."""


class Bytes(Protocol):
    """What is read once; see `readers.tape`."""

    def peek(self, size: int) -> bytes: ...

    def move(self, size: int) -> int: ...


def encode(encoding: str, value: Any) -> bytes:
    """A value of a column."""
    if encoding == "str":
        return str(value).encode()
    if encoding == "json":
        return json.dumps(value).encode()
    if encoding == "bytes":
        return bytes(value)
    if encoding in FIXED:
        return np.asarray(value, FIXED[encoding]).tobytes()
    kind, _, dtype = encoding.partition(":")
    assert kind == "ndarray", encoding
    array = np.ascontiguousarray(value, dtype)
    assert array.ndim == 1, array.shape
    code = next(i for i, t in enumerate(SHAPE_TYPES) if array.size <= np.iinfo(t).max)
    size = np.asarray(array.size, SHAPE_TYPES[code])
    return bytes([1 << 2 | code]) + size.tobytes() + array.tobytes()


def decode(encoding: str, data: bytes) -> Any:
    """The value of a column; NotMds for one that cannot be read without running code, or at all."""
    kind, _, rest = encoding.partition(":")
    if kind == "str":
        return data.decode()
    if kind == "json":
        return _plain_json(data)
    if kind == "bytes":
        return data
    if kind in FIXED:
        return np.frombuffer(data, FIXED[kind])[0].item()
    if kind == "ndarray":
        array = _array(rest, data)
        return array.tolist() if array.size else []  # (a billion, 0) is a billion lists
    if kind in ("str_int", "str_float"):
        return int(data) if kind == "str_int" else float(data)
    raise NotMds(f"columns of {encoding}")


def _plain_json(data: bytes) -> Any:
    """A value that can be written again, as the library's own writer can write more."""
    value = json.loads(data)
    try:
        orjson.dumps(value)
    except TypeError:
        raise NotMds("no plain JSON") from None
    return value


def _array(form: str, data: bytes) -> np.ndarray[Any, Any]:
    """An array; `form` is DTYPE:SHAPE, what is missing of it stands before the values."""
    dtype, _, known = form.partition(":")
    if not dtype:
        dtype, data = ARRAY_TYPES.get(data[0], ""), data[1:]
    if dtype not in FIXED:
        raise NotMds(f"arrays of {dtype or 'an unknown type'}")
    if known:
        return np.frombuffer(data, FIXED[dtype]).reshape([int(axis) for axis in known.split(",")])
    axes, code = data[0] >> 2, data[0] & 3
    end = 1 + axes * np.dtype(SHAPE_TYPES[code]).itemsize
    shape = np.frombuffer(data[1:end], SHAPE_TYPES[code])
    return np.frombuffer(data[end:], FIXED[dtype]).reshape(shape)


def read_rows(file: Bytes, limit: int) -> Iterator[tuple[int, Row | NotMds]]:
    """(number from 1, row or why it is none) of a shard that is not packed.

    Args:
        file: is read from one end to the other.
        limit: bytes; a longer sample is passed.
    Raises: NotMds, after what could be read.
    """
    count, first = struct.unpack("<II", _exactly(file, 8))
    if count > MOST_SAMPLES or first < 4 * (count + 2):
        raise NotMds("no MDS")
    rest = np.frombuffer(_exactly(file, 4 * count), "<u4")
    starts = np.concatenate([np.asarray([first], "<u4"), rest])
    if (starts[1:] < starts[:-1]).any():
        raise NotMds("offsets that fall")
    columns = _columns(file, first - 4 * (count + 2))
    for number in range(count):
        size = int(starts[number + 1]) - int(starts[number])
        yield number + 1, _sample(file, size, limit, columns)


def _columns(file: Bytes, size: int) -> list[Column]:
    """What a shard says of its columns; NotMds when it says none that can be."""
    if size > MOST_COLUMNS:
        raise NotMds("no columns")
    head = _exactly(file, size)
    try:
        facts = json.loads(head)
        said = [facts[f"column_{name}"] for name in ("names", "encodings", "sizes")]
        orjson.dumps(said)  # TypeError for what cannot be written
        columns = list(zip(*said, strict=True))
    except (ValueError, LookupError, TypeError, RecursionError):
        raise NotMds("no columns") from None
    if not all(map(_is_column, columns)):
        raise NotMds("no columns")
    return columns


def _is_column(column: tuple[Any, Any, Any]) -> bool:
    name, encoding, size = column
    words = isinstance(name, str) and isinstance(encoding, str) and len(encoding) < 100
    return words and (size is None or (type(size) is int and size >= 0))


def _sample(file: Bytes, size: int, limit: int, columns: list[Column]) -> Row | NotMds:
    if size > limit:
        if file.move(size) < size:
            raise NotMds("cut short")
        return NotMds("too long")
    data = _exactly(file, size)
    try:
        return _row(data, columns)
    except NotMds as reason:
        return reason
    except UnicodeDecodeError:
        return NotMds("not UTF-8")
    except RecursionError:
        return NotMds("no plain JSON")
    except (ValueError, IndexError, OverflowError, struct.error):
        return NotMds("damaged")


def _exactly(file: Bytes, size: int) -> bytes:
    data = file.peek(size)
    file.move(size)
    if len(data) < size:
        raise NotMds("cut short")
    return data


def _row(data: bytes, columns: list[Column]) -> Row:
    free = sum(size is None for _, _, size in columns)
    if len(data) < 4 * free:
        raise NotMds("cut short")
    given = iter(struct.unpack(f"<{free}I", data[: 4 * free]))
    at, row = 4 * free, {}
    for name, encoding, known in columns:
        size = next(given) if known is None else known
        if at + size > len(data):
            raise NotMds("cut short")
        row[name] = decode(encoding, data[at : at + size])
        at += size
    return row


@dataclass
class ShardWriter:
    """Writes rows into shards of a folder; use `finish`, then `write_index`."""

    folder: Path
    columns: dict[str, str]
    """Name -> encoding."""
    name: Callable[[int], str]
    """Of a shard by its number, without .mds."""
    packed: bool = True
    """Whether shards are zstd."""

    def __post_init__(self) -> None:
        self.names = sorted(self.columns)
        self.encodings = [self.columns[name] for name in self.names]
        self.sizes = [_fixed_size(encoding) for encoding in self.encodings]
        self.samples: list[bytes] = []
        self.bytes = 0
        self.shards: list[dict[str, Any]] = []

    def add(self, row: Row) -> None:
        """One more row."""
        values = [encode(e, row[n]) for n, e in zip(self.names, self.encodings, strict=True)]
        free = [len(v) for v, size in zip(values, self.sizes, strict=True) if size is None]
        sample = struct.pack(f"<{len(free)}I", *free) + b"".join(values)
        if self.samples and self.bytes + len(sample) + 4 > MOST_BYTES:
            self.finish()
        self.samples.append(sample)
        self.bytes += len(sample) + 4

    def finish(self) -> None:
        """Write the rows that are held; nothing when there are none."""
        if not self.samples:
            return
        columns = {
            "version": 2,
            "format": "mds",
            "compression": "zstd" if self.packed else None,
            "hashes": [],
            "size_limit": MOST_BYTES,
            "column_names": self.names,
            "column_encodings": self.encodings,
            "column_sizes": self.sizes,
        }
        data = _joined(self.samples, json.dumps(columns, sort_keys=True).encode())
        name = f"{self.name(len(self.shards))}.mds"
        raw, packed = _file_facts(name, data), None
        if self.packed:
            name, data = f"{name}.zstd", _pack(data)
            packed = _file_facts(name, data)
        with whole_file(self.folder / name) as part:
            part.write_bytes(data)
        facts = {"raw_data": raw, "zip_data": packed, "samples": len(self.samples)}
        self.shards.append(columns | facts)
        self.samples, self.bytes = [], 0


def _file_facts(name: str, data: bytes) -> dict[str, Any]:
    return {"basename": name, "bytes": len(data), "hashes": {}}


def _pack(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(data)


def index_of(shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What index.json holds."""
    return {"version": 2, "shards": list(shards)}


def _fixed_size(encoding: str) -> int | None:
    return np.dtype(FIXED[encoding]).itemsize if encoding in FIXED else None


def _joined(samples: Sequence[bytes], columns: bytes) -> bytes:
    sizes = [len(sample) for sample in samples]
    first = 4 + 4 * (len(samples) + 1) + len(columns)
    starts = np.cumsum([first, *sizes], dtype=np.int64)
    assert starts[-1] < 1 << 32, f"{starts[-1]} bytes in a shard"
    head = struct.pack("<I", len(samples)) + starts.astype("<u4").tobytes()
    return b"".join([head, columns, *samples])
