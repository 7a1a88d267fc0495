"""Checkpoints that megatron-core saved in parts (`torch_dist`), as whole tensors of ours.

Each part is a record of torch.save's within a file: where it begins, and which part of which tensor
it is, `.metadata` says. What the optimizer keeps is left out.

Source: torch.distributed.checkpoint; megatron-core, dist_checkpointing.
"""

import itertools
import math
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.completeness import whole_model
from megatron_jobs.convert.core_names import leading_axes, name_of
from megatron_jobs.convert.matrix import Block, Blocks, Matrix
from megatron_jobs.convert.megatron_args import model_of_args
from megatron_jobs.convert.pickles import read_pickle
from megatron_jobs.convert.storages import DTYPES, part_of, size_of
from megatron_jobs.convert.torch_files import map_file, open_archive, open_torch
from megatron_jobs.errors import DataError, UserError

METADATA = ".metadata"
COMMON_FILE, COMMON = "common.pt", re.compile(r"common_state(?:/shard_0_1)?")
"""What is no tensor: a file until megatron-core 0.16, then a record."""
PREFIX = re.compile(r"(?:(?:model\d*|module)\.)*")
OTHERS = re.compile(r"(?:chained_\d+\.)?optimizer\b.*|rng_state.*|rerun_state.*|.*\._extra_state.*")
"""Keys of what a training keeps beside its model."""
HALF = re.compile(r"(?P<name>.*\.linear_fc1\.(?:weight|bias))_(?P<half>[wv])")
"""Gate and up under keys of their own (`singleton_local_shards`)."""
MOST_LETTERS = 1000
"""Of a key."""
MOST_PARTS = 16384
"""Of a tensor, and layers and experts together under a key."""
FLOATS = {DTYPES[name] for name in ("float32", "float64", "float16", "bfloat16")}
PACKAGE = "torch.distributed.checkpoint"
TENSOR, BYTES = (f"{PACKAGE}.metadata.{kind}StorageMetadata" for kind in ("Tensor", "Bytes"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies."""

    file: str
    at: int
    size: int


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor as `.metadata` describes it."""

    shape: tuple[int, ...]
    dtype: Any
    chunks: list[tuple[tuple[int, ...], tuple[int, ...]]]
    """(offsets, sizes) of each part."""


@dataclass(frozen=True)
class Folder:
    """The files of a checkpoint, each mapped once, and its records."""

    path: Path
    records: Mapping[tuple[str, tuple[int, ...]], Place]
    maps: dict[str, mmap.mmap] = field(default_factory=dict)

    def open(self, key: str, offsets: tuple[int, ...] = ()) -> Any:
        """What a record holds; DataError, naming its file and key, when it cannot be read."""
        place = self.records.get((key, offsets))
        if place is None:
            raise DataError(f"{self.path / METADATA}: {key}: its part at {offsets} is nowhere")
        if place.file not in self.maps:
            self.maps[place.file] = map_file(self.path / place.file)
        where = f"{self.path / place.file}: {key}"
        return open_archive(self.maps[place.file], where, place.at, place.size)


def open_checkpoint(
    path: Path, model: ModelConfig | None = None
) -> tuple[dict[str, Matrix], ModelConfig]:
    """Our names and tensors of a checkpoint folder, and the settings of its model.

    Args:
        model: its settings; None: those of the arguments of Megatron-LM that it holds.
    Raises: DataError, naming file and tensor, for what is missing, cut short, left out or lies;
        UserError when it holds no arguments, or those of a model that we cannot compute.
    """
    described, folder = _read_metadata(path)
    if model is None:
        args = _arguments(folder)
        if args is None:
            rule = "holds no arguments of Megatron-LM; say what model it is"
            raise UserError(f"{path}: {rule} by `model`")
        model = model_of_args(args, str(path))
    parts: dict[str, Matrix] = {}
    for key, tensor in described.items():
        for name, matrix in _tensors_of(key, tensor, folder):
            if name in parts:
                raise DataError(f"{path}: {name}: is there twice")
            parts[name] = matrix
    return whole_model(_joined(parts), model, str(path)), model


def _read_metadata(path: Path) -> tuple[dict[str, Described], Folder]:
    """Tensors by key, but for the optimizer's, and where everything lies."""
    file = path / METADATA
    data = map_file(file)
    metadata, end = read_pickle(data, str(file))
    if end != len(data):
        raise DataError(f"{file}: {len(data) - end:,} bytes follow its pickle")
    try:
        described = dict(_described(metadata.field("state_dict_metadata")))
        records = dict(_records(metadata.field("storage_data")))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(f"{file}: not the metadata of a checkpoint: {error}") from error
    return described, Folder(path, records)


def _described(entries: Any) -> Iterator[tuple[str, Described]]:
    """Tensors by key, but for the optimizer's; the entries are used up."""
    for key in list(entries):
        entry = entries.pop(key)
        if not isinstance(key, str) or len(key) > MOST_LETTERS:
            raise ValueError(f"{str(key)[:100]} is no name of a tensor")
        if entry.name not in (TENSOR, BYTES):
            raise ValueError(f"{key} is a {entry.name}")
        if entry.name == BYTES or OTHERS.fullmatch(PREFIX.sub("", key, count=1)):
            continue
        pairs = [(c.field("offsets"), c.field("sizes")) for c in entry.field("chunks")]
        chunks = [(size_of(offsets), size_of(sizes)) for offsets, sizes in pairs]
        dtype = DTYPES[entry.field("properties").state[0].name.removeprefix("torch.")]
        yield key, Described(size_of(entry.field("size")), dtype, chunks)


def _records(entries: Any) -> Iterator[tuple[tuple[str, tuple[int, ...]], Place]]:
    """Where each record lies; the entries are used up."""
    while entries:
        index, info = entries.popitem()
        file, at, size = (info.field(name) for name in ("relative_path", "offset", "length"))
        if not isinstance(file, str) or type(at) is not int or type(size) is not int:
            raise ValueError(f"{index.field('fqn')} lies nowhere")
        if PurePosixPath(file).name != file or file in ("..", "."):
            raise ValueError(f"{index.field('fqn')} lies in {file!r}, a path that climbs out")
        if info.field("transform_descriptors"):
            raise ValueError(f"{index.field('fqn')} is compressed by an extension")
        offset = index.field("offset")
        yield (index.field("fqn"), size_of(() if offset is None else offset)), Place(file, at, size)


def _arguments(folder: Folder) -> Mapping[str, Any] | None:
    """`args` of Megatron-LM, if there are any."""
    file = folder.path / COMMON_FILE
    common = open_torch(file) if file.is_file() else None
    for key, offsets in folder.records:
        if COMMON.fullmatch(key):
            (common,) = folder.open(key, offsets)
    args = common.get("args") if isinstance(common, dict) else None
    return args if isinstance(args, dict) else None


def _tensors_of(key: str, tensor: Described, folder: Folder) -> Iterator[tuple[str, Matrix]]:
    """Our tensors that stand under a key: one, or one for each layer and expert."""
    name = PREFIX.sub("", key, count=1)
    half = HALF.fullmatch(name)
    name = half["name"] if half else name
    axes = leading_axes(name)
    shape = tensor.shape[axes:]
    layers = math.prod(tensor.shape[:axes])
    if len(tensor.shape) < axes or layers > MOST_PARTS or len(tensor.chunks) > layers * MOST_PARTS:
        parts = f"{len(tensor.chunks)} parts of {list(tensor.shape)}"
        raise DataError(f"{folder.path}: {key}: {parts} are no layers and experts")
    blocks: dict[tuple[int, ...], list[Block]] = {}
    for offsets, sizes in tensor.chunks:
        matrix = _chunk(folder, key, offsets, sizes, tensor)
        for index in itertools.product(*map(range, sizes[:axes])):
            place = tuple(a + b for a, b in zip(offsets, index, strict=False))
            block = _block(part_of(matrix, index), offsets[axes:], shape)
            blocks.setdefault(place, []).append(block)
    for index in itertools.product(*map(range, tensor.shape[:axes])):
        ours = name_of(name, index) + (half["half"] if half else "")
        yield ours, _whole(shape, blocks.get(index, []), f"{folder.path}: {ours}")


def _chunk(
    folder: Folder,
    key: str,
    offsets: tuple[int, ...],
    sizes: tuple[int, ...],
    tensor: Described,
) -> Matrix:
    """A part of a tensor, which must be what the metadata says.

    Layers may be of several formats, and the metadata has one for all that lie under a key.
    """
    matrix = folder.open(key, offsets)
    where = f"{folder.path}: {key} at {offsets}"
    if not isinstance(matrix, Matrix):
        raise DataError(f"{where}: is no tensor")
    if len(sizes) != len(tensor.shape) or len(offsets) != len(sizes):
        raise DataError(f"{where}: has {len(sizes)} axes, the whole {len(tensor.shape)}")
    floats = {matrix.dtype, tensor.dtype} <= FLOATS
    if matrix.shape != sizes or (matrix.dtype != tensor.dtype and not floats):
        rule = f"found {list(matrix.shape)} {matrix.dtype}, {METADATA} says"
        raise DataError(f"{where}: {rule} {list(sizes)} {tensor.dtype}")
    if any(a + n > whole for a, n, whole in zip(offsets, sizes, tensor.shape, strict=True)):
        raise DataError(f"{where}: reaches out of the whole, {list(tensor.shape)}")
    return matrix


def _block(matrix: Matrix, offsets: tuple[int, ...], shape: tuple[int, ...]) -> Block:
    """A part as a rectangle of rows and columns."""
    if len(shape) > 2 and (any(offsets[1:]) or matrix.shape[1:] != shape[1:]):
        raise DataError(f"a tensor of {list(shape)} that is cut over other axes than the first")
    if len(shape) > 2:
        rows = offsets[0]
        for count in shape[1:-1]:
            rows *= count
        return Block(rows, 0, matrix)
    row, column = (*offsets, 0, 0)[:2]
    return Block(row, column, matrix)


def _whole(shape: tuple[int, ...], blocks: list[Block], where: str) -> Matrix:
    if len(blocks) == 1 and blocks[0].matrix.shape == shape:
        return blocks[0].matrix
    dtype, *others = {block.matrix.dtype for block in blocks} or {np.dtype(np.float32)}
    if others:
        raise DataError(f"{where}: its parts are {dtype} and {others[0]}")
    try:
        return Blocks(shape, dtype, blocks)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from error


def _joined(parts: dict[str, Matrix]) -> dict[str, Matrix]:
    """Gate above up, where they stand under keys of their own."""
    found = {}
    for name, matrix in parts.items():
        if name.endswith(("weightw", "biasw")) and name[:-1] + "v" in parts:
            up = parts[name[:-1] + "v"]
            shape = (matrix.shape[0] + up.shape[0], *matrix.shape[1:])
            blocks = [Block(0, 0, matrix), Block(matrix.rows, 0, up)]
            found[name[:-1]] = _whole(shape, blocks, name)
        elif not name.endswith(("weightv", "biasv")):
            found[name] = matrix
    return found
