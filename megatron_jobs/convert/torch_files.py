"""Files that `torch.save` wrote, read without torch and without running what they hold.

Their tensors are views of the mapped file. Both formats are read: the archive of today, and the
stream of pickles and storages that was written before PyTorch 1.6 and can still be asked for.

Source: torch.serialization, and its documentation, "Serialization semantics".
"""

import mmap
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs.convert.matrix import Array
from megatron_jobs.convert.pickle_machine import MOST_BYTES
from megatron_jobs.convert.pickle_names import Global, storage_of
from megatron_jobs.convert.pickles import read_pickle
from megatron_jobs.convert.storages import DTYPES, Storage
from megatron_jobs.convert.zips import Entry, is_whole, read_zip
from megatron_jobs.errors import DataError

ARCHIVE = b"PK\x03\x04"
PICKLE = "/data.pkl"
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
"""With these two pickles the older format begins."""
Find = Callable[[str, int], tuple[Array | None, bool]]
"""(key, bytes) -> the bytes of a storage, and whether those of a number are to be swapped."""


def map_file(path: Path) -> mmap.mmap:
    """A file's bytes, read when they are used; DataError for an empty one or none."""
    if not path.is_file():
        raise DataError(f"{path}: {'is no file' if path.exists() else 'is missing'}")
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise DataError(f"{path}: is empty") from error


def open_torch(path: Path) -> Any:
    """What `torch.save` wrote: plain dicts, lists and values, its tensors as `Matrix`.

    Raises: DataError, naming the file, when it is cut short, lies, or asks for code.
    """
    data = map_file(path)
    if data[:4] == ARCHIVE:
        return open_archive(data, str(path))
    return _open_stream(data, str(path))


def open_archive(data: mmap.mmap, where: str, start: int = 0, size: int | None = None) -> Any:
    """As `open_torch`, of an archive that is a part of a mapped file."""
    try:
        entries = read_zip(data, start, len(data) - start if size is None else size)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error
    pickles = [name for name in entries if name.endswith(PICKLE) and name.count("/") == 1]
    if len(pickles) != 1 or any("/code/" in name for name in entries):
        raise DataError(f"{where}: an archive that torch.save did not write")
    prefix = pickles[0].removesuffix(PICKLE)
    pickle = entries[pickles[0]]
    _check_pickle(data, pickle, entries.get(f"{prefix}/version"), where)
    swapped = _is_swapped(data, entries.get(f"{prefix}/byteorder"), where)

    def find(key: str, size: int) -> tuple[Array, bool]:
        entry = entries.get(f"{prefix}/data/{key}")
        if entry is None or entry.size != size:
            found = "none" if entry is None else f"one of {entry.size:,} bytes"
            raise ValueError(f"storage {key[:100]!r} of {size:,} bytes: found {found}")
        return np.frombuffer(data, np.uint8, size, entry.start), swapped

    content = data[pickle.start : pickle.start + pickle.size]
    return read_pickle(content, where, persistent=lambda saved: _storage(saved, find))[0]


def _check_pickle(data: mmap.mmap, pickle: Entry, version: Entry | None, where: str) -> None:
    """Its size; its checksum, if the archive has any: torch can leave them out, of all entries."""
    if pickle.size > MOST_BYTES:
        raise DataError(f"{where}: its pickle has {pickle.size:,} bytes, over {MOST_BYTES:,}")
    has_checksums = version is None or version.size > 100 or is_whole(data, version)
    if has_checksums and not is_whole(data, pickle):
        raise DataError(f"{where}: the bytes of its pickle are not those that were written")


def _is_swapped(data: mmap.mmap, order: Entry | None, where: str) -> bool:
    if order is None:  # before PyTorch 2.1, which was written on small-endian machines
        return sys.byteorder != "little"
    word = data[order.start : order.start + min(order.size, 100)]
    if word not in (b"little", b"big"):
        raise DataError(f"{where}: its bytes are in the order {word!r}, neither little nor big")
    return word.decode() != sys.byteorder


def _storage(saved: Any, find: Find) -> Storage:
    """A storage of what its pickle says of it: kind, key, device and numbers in it."""
    match saved:
        case (("storage" | b"storage"), Global() as kind, str() as key, _, int() as count, *rest):
            pass
        case _:
            raise ValueError("it keeps something outside of its pickle that is no storage")
    known = storage_of(kind.name)
    if known is None or count < 0 or any(more is not None for more in rest):
        raise ValueError(f"a storage of {kind.name} and {count} numbers")
    (dtype,) = known
    found, swapped = find(key, count * (dtype or DTYPES["uint8"]).itemsize)
    return Storage(dtype, found, swapped)


def _open_stream(data: mmap.mmap, where: str) -> Any:
    """The older format: five pickles, then each storage, its count of numbers before it."""
    at = 0
    values = []
    for _ in range(3):
        value, at = read_pickle(data, where, start=at)
        values.append(value)
    if values[:2] != [MAGIC, PROTOCOL] or not isinstance(values[2], dict):
        raise DataError(f"{where}: not a file of torch.save's")
    sizes: dict[str, int] = {}

    def note(key: str, size: int) -> tuple[None, bool]:
        if sizes.setdefault(key, size) != size:
            raise ValueError(f"storage {key[:100]!r} has two sizes")
        return None, False

    _, end = read_pickle(data, where, start=at, persistent=lambda saved: _storage(saved, note))
    keys, end = read_pickle(data, where, start=end)
    places = _places(data, where, keys, sizes, end)

    def find(key: str, size: int) -> tuple[Array, bool]:
        return np.frombuffer(data, np.uint8, size, places[key]), sys.byteorder != "little"

    return read_pickle(data, where, start=at, persistent=lambda saved: _storage(saved, find))[0]


def _places(
    data: mmap.mmap, where: str, keys: Any, sizes: dict[str, int], at: int
) -> dict[str, int]:
    """Where the bytes of each storage begin."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DataError(f"{where}: its list of storages is none")
    if set(keys) != set(sizes) or len(set(keys)) != len(keys):
        raise DataError(f"{where}: its list of storages is not that of its tensors")
    places = {}
    for key in keys:
        size = sizes[key]
        if at + 8 + size > len(data):
            raise DataError(f"{where}: ends within storage {key[:100]!r}: it was cut short")
        (count,) = struct.unpack_from("<q", data, at)
        if size not in {count * item for item in (1, 2, 4, 8, 16)}:
            raise DataError(f"{where}: storage {key[:100]!r} holds {count} numbers, {size} bytes")
        places[key] = at + 8
        at += 8 + size
    return places
