"""The `.metadata` of a distributed checkpoint: which record of which file is which piece.

Its pickle is put together here, entry by entry: as objects, its entries would take some kB for each
tensor, and a model of many experts has tens of thousands.

Source: torch.distributed.checkpoint, metadata.py and filesystem.py; Python's pickletools.
"""

import pickle
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.convert.packed import Packing

PACKAGE = "torch.distributed.checkpoint"
VERSION = "1.0.0"
TORCH: dict[np.dtype[np.generic], str] = {
    np.dtype(np.float32): "float32",
    np.dtype(np.float64): "float64",
    np.dtype(np.float16): "float16",
    np.dtype(ml_dtypes.bfloat16): "bfloat16",
}
"""torch's names."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A record, and what it is a piece of; without sizes it is an object."""

    file: str
    at: int
    bytes: int
    key: str
    whole: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()
    sizes: tuple[int, ...] | None = None
    dtype: np.dtype[np.generic] | None = None


def metadata_pickle(stored: Sequence[Stored]) -> Matrix:
    """The whole file, which says the same words for each record and so is kept compressed."""
    pieces: dict[str, list[Stored]] = {}
    for one in stored:
        pieces.setdefault(one.key, []).append(one)
    made = _Pickle()
    made.write(pickle.PROTO, b"\2")
    made.begin("metadata", "Metadata")
    made.write(text("state_dict_metadata"), pickle.EMPTY_DICT)
    for key, parts in pieces.items():
        made.write(text(key))
        made.tensor(parts)
        made.write(pickle.SETITEM)
    made.write(text("planner_data"), pickle.NONE, text("storage_data"), pickle.EMPTY_DICT)
    for one in stored:
        made.place(one)
        made.write(pickle.SETITEM)
    made.write(text("storage_meta"), pickle.NONE, text("version"), text(VERSION))
    made.end()
    made.write(pickle.STOP)
    return made.made.matrix()


class _Pickle:
    """A pickle as far as it is written."""

    def __init__(self) -> None:
        self.made = Packing()
        self.names: dict[str, bytes] = {}

    def write(self, *codes: bytes) -> None:
        """Put codes at the end."""
        for code in codes:
            self.made.add(code)

    def name(self, module: str, name: str) -> None:
        """A class or a function, by name the first time."""
        known = self.names.get(name)
        if known is not None:
            self.write(known)
            return
        number = bytes([len(self.names)])
        self.write(pickle.GLOBAL, f"{module}\n{name}\n".encode(), pickle.BINPUT, number)
        self.names[name] = pickle.BINGET + number

    def begin(self, module: str, name: str) -> None:
        """An instance of a class of theirs, whose names and values follow until `end`."""
        self.name(f"{PACKAGE}.{module}", name)
        self.write(pickle.EMPTY_TUPLE, pickle.NEWOBJ, pickle.EMPTY_DICT, pickle.MARK)

    def end(self) -> None:
        """The end of an instance."""
        self.write(pickle.SETITEMS, pickle.BUILD)

    def size(self, numbers: Iterable[int]) -> None:
        """A torch.Size."""
        self.name("torch", "Size")
        self.write(pickle.MARK, *map(integer, numbers), pickle.TUPLE, pickle.TUPLE1, pickle.REDUCE)

    def tensor(self, parts: Sequence[Stored]) -> None:
        """What is known of all that lies under a key: an object, or a tensor in parts."""
        (first, *_) = parts
        if first.sizes is None:
            self.begin("metadata", "BytesStorageMetadata")
            self.end()
            return
        self.begin("metadata", "TensorStorageMetadata")
        self.write(text("properties"))
        self.properties(first)
        self.write(text("size"))
        self.size(first.whole)
        self.write(text("chunks"), pickle.EMPTY_LIST, pickle.MARK)
        for part in parts:
            assert part.sizes is not None, part.key
            self.begin("metadata", "ChunkStorageMetadata")
            self.write(text("offsets"))
            self.size(part.offsets)
            self.write(text("sizes"))
            self.size(part.sizes)
            self.end()
        self.write(pickle.APPENDS)
        self.end()

    def properties(self, one: Stored) -> None:
        """Number format, layout, gradient, memory format, pinned."""
        assert one.dtype is not None, one.key
        self.name(f"{PACKAGE}.metadata", "TensorProperties")
        self.write(pickle.EMPTY_TUPLE, pickle.NEWOBJ, pickle.MARK)
        self.name("torch", TORCH[one.dtype])
        self.name("torch.serialization", "_get_layout")
        self.write(text("torch.strided"), pickle.TUPLE1, pickle.REDUCE, pickle.NEWFALSE)
        self.name(f"{PACKAGE}.metadata", "_MEM_FORMAT_ENCODING")
        self.write(integer(0), pickle.TUPLE1, pickle.REDUCE, pickle.NEWFALSE)
        self.write(pickle.TUPLE, pickle.BUILD)

    def place(self, one: Stored) -> None:
        """Which record, and where it lies."""
        self.begin("metadata", "MetadataIndex")
        self.write(text("fqn"), text(one.key), text("offset"))
        if one.sizes is None:
            self.write(pickle.NONE)
        else:
            self.size(one.offsets)
        self.write(text("index"), pickle.NONE)
        self.end()
        self.begin("filesystem", "_StorageInfo")
        self.write(text("relative_path"), text(one.file), text("offset"), integer(one.at))
        self.write(text("length"), integer(one.bytes), text("transform_descriptors"), pickle.NONE)
        self.end()


def text(value: str) -> bytes:
    """Code of a string."""
    found = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(found)) + found


def integer(value: int) -> bytes:
    """Code of a number that is not negative."""
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    found = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(found)]) + found
