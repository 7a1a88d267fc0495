"""Safetensors, read as views of mapped files and planned as files; one, or a folder of them.

A file: 8 bytes with the length of a header, the header as JSON, the tensors' bytes without gaps.
Source: the format's own README, github.com/huggingface/safetensors.
"""

import json
import math
import mmap
import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from megatron_jobs.convert.files import FilePlan, Item
from megatron_jobs.convert.json_file import parse_json, read_limited_json
from megatron_jobs.convert.matrix import Matrix, Stored
from megatron_jobs.errors import DataError

HEADER_BYTES = 100_000_000
"""The longest header, as the format's own reader has it."""
WHOLE = "model.safetensors"
SHARD = "model-{number:05d}-of-{count:05d}.safetensors"
INDEX = "model.safetensors.index.json"
METADATA = "__metadata__"
LENGTH = struct.Struct("<Q")
ALIGNMENT = 8
INDEX_BYTES = 64 << 20
"""The largest index that is read; one of 100,000 tensors has 10 MB."""
MOST_DIMS = 32
"""numpy's own bound."""
MOST_COUNT = (1 << 48) - 1
"""Of a dimension or an offset; more bytes than any file system holds."""
BESIDE = ("adapter", "consolidated")
"""Beginnings of names of files that lie beside a model: additions to it, and copies."""
SHARD_NAME = re.compile(r"model-\d+-of-(\d+)\.safetensors")
SHARD_BYTES = 5_000_000_000
"""Bytes of tensors in one file, as transformers deals them out by default."""
DTYPES: dict[str, np.dtype[np.generic]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "F32": np.dtype(np.float32),
    "C64": np.dtype(np.complex64),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
"""The format's names. Their order is that of the format's own writer, which begins at the end."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a header."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    start: int
    stop: int


def open_safetensors(path: Path) -> dict[str, Matrix]:
    """The tensors of a file, views of one map of it, in the order of their bytes.

    Raises: DataError, naming file and tensor, when its header does not tell the truth.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header, begin = _read_header(file, path, size)
        entries = _entries(header, size - begin, path)
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        data.madvise(mmap.MADV_SEQUENTIAL)
    found: dict[str, Matrix] = {}
    for entry in entries:
        place = begin + entry.start
        found[entry.name] = Stored(np.ndarray(entry.shape, entry.dtype, data, place))
    return found


def _read_header(file: BinaryIO, path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header, and where the tensors' bytes begin."""
    found = file.read(LENGTH.size)
    if len(found) < LENGTH.size:
        raise DataError(f"{path}: has {size} bytes; a safetensors file begins with 8 of a length")
    length: int = LENGTH.unpack(found)[0]
    if length > HEADER_BYTES:
        raise DataError(f"{path}: its header is of {length:,} bytes, over {HEADER_BYTES:,}")
    if length > size - LENGTH.size:
        raise DataError(f"{path}: its header is of {length:,} bytes, the file has {size:,}")
    header = parse_json(file.read(length), f"{path}: header")
    if not isinstance(header, dict):
        raise DataError(f"{path}: its header is a {type(header).__name__}, not an object")
    return header, LENGTH.size + length


def _entries(header: dict[str, Any], size: int, path: Path) -> list[Entry]:
    """The tensors of a header, by their bytes, which fill `size` without gaps. It is used up."""
    header.pop(METADATA, None)
    entries = [_entry(name, header.pop(name), f"{path}: {name}") for name in list(header)]
    entries.sort(key=lambda entry: (entry.start, entry.stop))
    end = 0
    for entry in entries:
        if entry.start != end:
            fault = "leaves a gap" if entry.start > end else "overlaps another"
            raise DataError(f"{path}: {entry.name}: begins at {entry.start}, not {end}: {fault}")
        end = entry.stop
    if end != size:
        fault = "it is cut short" if end > size else "the rest is nobody's"
        raise DataError(f"{path}: its tensors have {end:,} bytes, found {size:,}: {fault}")
    return entries


def _entry(name: str, value: Any, where: str) -> Entry:
    """What the header says of one tensor, checked by itself."""
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= set(value):
        raise DataError(f"{where}: needs dtype, shape and data_offsets")
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise DataError(f"{where}: dtype {value['dtype']!r} is not known")
    shape, offsets = value["shape"], value["data_offsets"]
    huge = _are_counts(shape) and math.prod(max(1, count) for count in shape) > MOST_COUNT
    if not _are_counts(shape) or len(shape) > MOST_DIMS or huge:
        raise DataError(f"{where}: shape {shape!r} is none")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise DataError(f"{where}: data_offsets {offsets!r} are none")
    needed = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != needed:
        found = f"{offsets[1] - offsets[0]:,} bytes"
        raise DataError(f"{where}: has {found}, {value['dtype']} {shape} takes {needed:,}")
    return Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value <= MOST_COUNT for value in values
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder that hold its model, by name; none where there are none.

    model.safetensors, else those of the index, else shards by their names, else what there is but
    for adapters and `consolidated` copies, unless .bin files hold the model.
    Raises: DataError when shards are missing.
    """
    whole = folder / WHOLE
    if whole.is_file():
        return [file_inside(folder, WHOLE, folder)]
    if (folder / INDEX).exists():
        names = sorted(set(weight_map(folder, INDEX).values()))
        return [file_inside(folder, name, folder / INDEX) for name in names]
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    found = [name for name in found if not name.startswith(BESIDE)]
    shards = [match for name in found if (match := SHARD_NAME.fullmatch(name))]
    if shards:
        found = [match[0] for match in shards]
        if len(shards) != int(shards[0][1]):
            raise DataError(f"{folder}: holds {len(shards)} of {int(shards[0][1])} shards")
    elif any(folder.glob("pytorch_model*.bin*")):
        return []
    return [file_inside(folder, name, folder) for name in found]


def open_folder(folder: Path) -> dict[str, Matrix]:
    """The tensors of all `weight_files` of a folder, or of one file.

    Raises: DataError when a tensor is in two files, or the index names what is not there.
    """
    if folder.is_file():
        return open_safetensors(folder)
    files = weight_files(folder)
    if not files:
        raise DataError(f"{folder}: holds no {WHOLE}, no {INDEX} and no *.safetensors")
    found, places = open_files(files, open_safetensors)
    if (folder / INDEX).exists() and not (folder / WHOLE).is_file():
        check_index(folder, INDEX, places)
    return found


def open_files(
    files: list[Path], opened: Callable[[Path], dict[str, Matrix]]
) -> tuple[dict[str, Matrix], dict[str, str]]:
    """The tensors of all files, and the name of the file of each; DataError for one in two."""
    found: dict[str, Matrix] = {}
    places: dict[str, str] = {}
    for file in files:
        tensors = opened(file)
        for name in tensors:
            if name in places:
                raise DataError(f"{file}: {name}: is in {places[name]} too")
            places[name] = file.name
        found |= tensors
    return found, places


def check_index(folder: Path, index_name: str, places: Mapping[str, str]) -> None:
    """DataError unless each tensor of an index is in the file that it names.

    Args:
        places: name of the file by name of each tensor, as found.
    """
    for name, file in weight_map(folder, index_name).items():
        if places.get(name) != Path(file).name:
            raise DataError(f"{folder / index_name}: {name}: is not in {file}")


def weight_map(folder: Path, index_name: str) -> dict[str, str]:
    """Names of files by names of tensors, as an index has them; DataError when it has none."""
    index = read_limited_json(folder / index_name, INDEX_BYTES)
    found = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        rule = "needs weight_map: names of tensors to names of files"
        raise DataError(f"{folder / index_name}: {rule}")
    if not found:
        raise DataError(f"{folder / index_name}: weight_map: is empty, it names no tensor")
    return found


def file_inside(folder: Path, name: str, where: Path) -> Path:
    """A file of the folder; DataError when its name, or a link, leads out of it."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise DataError(f"{where}: names {name!r}, which is no file of this folder")
    return check_inside(folder / name, folder, where)


def check_inside(path: Path, folder: Path, where: Path) -> Path:
    """The path, a file below the folder; DataError when a link leads out of it, or nowhere.

    Links into `blobs` beside `snapshots` are how the cache of Hugging Face's hub is laid out.
    """
    name = path.relative_to(folder)
    real, home = path.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (real.is_relative_to(home) or real.is_relative_to(blobs)):
        raise DataError(f"{where}: {name}: is a link out of the folder, to {real}")
    if not path.is_file():
        raise DataError(f"{where}: names {name}, which is not there")
    return path


def plan_safetensors(
    tensors: Mapping[str, Matrix],
    folder: str = "",
    *,
    shard_bytes: int = SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> list[FilePlan]:
    """Files that transformers loads: model.safetensors, or shards of it and their index.

    Args:
        folder: where they go, below that of `write_files`; empty: into it.
        shard_bytes: of tensors in one file at most; one that is larger has a file of its own.
        metadata: of each file; None: {"format": "pt"}, which transformers asks for.
    """
    prefix = f"{folder}/" if folder else ""
    metadata = {"format": "pt"} if metadata is None else metadata
    shards = deal_out(tensors, shard_bytes)
    if len(shards) == 1:
        return [plan_file(prefix + WHOLE, shards[0], metadata)]
    names = [SHARD.format(number=i + 1, count=len(shards)) for i in range(len(shards))]
    named = list(zip(names, shards, strict=True))
    plans = [plan_file(prefix + name, shard, metadata) for name, shard in named]
    weight_map = {tensor: name for name, shard in named for tensor in shard}
    totals = {
        "total_parameters": sum(math.prod(matrix.shape) for matrix in tensors.values()),
        "total_size": sum(matrix.bytes for matrix in tensors.values()),
    }
    index = {"metadata": totals, "weight_map": weight_map}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    return [*plans, FilePlan(prefix + INDEX, [Item(text.encode())])]


def deal_out(tensors: Mapping[str, Matrix], limit: int) -> list[dict[str, Matrix]]:
    """Tensors in their order, in groups of at most `limit` bytes; at least one group."""
    groups: list[dict[str, Matrix]] = [{}]
    size = 0
    for name, matrix in tensors.items():
        if groups[-1] and size + matrix.bytes > limit:
            groups.append({})
            size = 0
        groups[-1][name] = matrix
        size += matrix.bytes
    return groups


def plan_file(
    name: str, tensors: Mapping[str, Matrix], metadata: Mapping[str, str] | None = None
) -> FilePlan:
    """One file, byte for byte as the format's own writer makes it."""
    order = {dtype: -place for place, dtype in enumerate(DTYPES.values())}
    ranked = sorted(tensors.items(), key=lambda pair: (order[pair[1].dtype], pair[0]))
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for key, matrix in ranked:
        start, end = end, end + matrix.bytes
        header[key] = {
            "dtype": NAMES[matrix.dtype],
            "shape": list(matrix.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    items = [Item(matrix=matrix, name=key) for key, matrix in ranked]
    return FilePlan(name, [Item(LENGTH.pack(len(text)) + text), *items])
