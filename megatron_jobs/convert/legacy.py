"""Megatron-LM's folders of one file for each rank, `mp_rank_XX`, as whole tensors of ours.

ROOT/latest_checkpointed_iteration.txt         a number, or `release`
ROOT/iter_0000010/mp_rank_01/                  tensor rank 1
ROOT/iter_0000010/mp_rank_01_002/              tensor rank 1, pipeline (or expert) rank 2
ROOT/iter_0000010/mp_rank_01_002_003/          tensor rank 1, pipeline rank 2, expert rank 3

Source: Megatron-LM, megatron/training/checkpointing.py, get_checkpoint_name.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.completeness import whole_model
from megatron_jobs.convert.legacy_merge import Part, Place, merged
from megatron_jobs.convert.legacy_names import OLD_QKV, local_name, old_order
from megatron_jobs.convert.matrix import Matrix, Ordered
from megatron_jobs.convert.megatron_args import model_of_args
from megatron_jobs.convert.torch_files import open_torch
from megatron_jobs.errors import DataError, UserError

SIZES = (
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "expert_model_parallel_size",
)
"""Arguments."""
MOST_LETTERS = 1000
"""Of a name."""
LATEST = "latest_checkpointed_iteration.txt"
FILES = ("model_optim_rng.pt", "model_rng.pt")
RANK = re.compile(r"mp_rank_(\d{2,6})(?:_(\d{3,6}))?(?:_(\d{3,6}))?")


def open_legacy(
    path: Path, model: ModelConfig | None = None
) -> tuple[dict[str, Matrix], ModelConfig]:
    """Our names and tensors of a legacy folder, and the settings of its model.

    Args:
        path: ROOT, or the folder of an iteration.
        model: its settings; None: those of the arguments that its files hold.
    Raises: DataError, naming file and tensor, for what is missing, cut short or lies; UserError
        when it holds no arguments, or is of a model that we cannot compute.
    """
    folder = _iteration(path)
    files = _rank_files(folder)
    first = _opened(files[min(files)])
    args = first.get("args")
    args = args if isinstance(args, dict) else {}
    if model is None and not args:
        raise UserError(f"{folder}: holds no arguments; say what model it is by `model`")
    model = model or model_of_args(args, str(files[min(files)]))
    places = _grid(folder, files, args)
    parts = {place: _parts(file, places, model) for place, file in places.items()}
    return whole_model(merged(parts, model, str(folder)), model, str(folder)), model


def _iteration(path: Path) -> Path:
    file = path / LATEST
    if not file.is_file():
        return path
    word = file.read_text(encoding="utf-8", errors="replace")[:100].strip()
    if word == "release":
        return path / word
    if not re.fullmatch(r"[0-9]{1,12}", word):
        raise DataError(f"{file}: found {word!r}; it must be a number or release")
    return path / f"iter_{int(word):07}"


def _rank_files(folder: Path) -> dict[tuple[int, ...], Path]:
    """The numbers in the names of the ranks' folders, and the file in each."""
    found: dict[tuple[int, ...], Path] = {}
    for rank in sorted(folder.glob("mp_rank_*")):
        match = RANK.fullmatch(rank.name)
        if not match:
            continue
        files = [rank / name for name in FILES if (rank / name).is_file()]
        if not files:
            raise DataError(f"{rank}: holds no {FILES[0]}")
        found[tuple(int(number) for number in match.groups() if number is not None)] = files[0]
    if not found:
        raise DataError(f"{folder}: holds no mp_rank_XX; not a checkpoint of Megatron-LM's ranks")
    if len({len(numbers) for numbers in found}) > 1:
        raise DataError(f"{folder}: the names of its ranks' folders have not the same numbers")
    return found


def _grid(
    folder: Path, files: Mapping[tuple[int, ...], Path], args: Mapping[str, Any]
) -> dict[Place, Path]:
    """Every rank's file; DataError when one is missing."""
    tensors, stages, experts = (args.get(name) or 1 for name in SIZES)
    if not all(type(size) is int for size in (tensors, stages, experts)):
        raise DataError(f"{folder}: args: {', '.join(SIZES)}: are no counts")
    wide = args.get("expert_tensor_parallel_size")
    if experts > 1 and wide not in (None, tensors):
        rule = "experts that are cut otherwise than the rest cannot be read"
        raise UserError(f"{folder}: args: expert_tensor_parallel_size {wide}: {rule}")
    found: dict[Place, Path] = {}
    for (tensor, *others), file in files.items():
        if len(others) == 1 and stages == 1 and experts > 1:
            others = [0, *others]
        stage, expert = [*others, 0, 0][:2]
        found[tensor, stage, expert] = file
    sizes = tuple(max(place[axis] for place in found) + 1 for axis in range(3))
    if args and sizes != (tensors, stages, experts):
        said = f"its args say {_sizes((tensors, stages, experts))}"
        raise DataError(f"{folder}: holds {_sizes(sizes)} ranks, {said}")
    if len(found) != math.prod(sizes):
        raise DataError(f"{folder}: holds {len(found)} of {_sizes(sizes)} ranks")
    return found


def _sizes(sizes: tuple[int, ...]) -> str:
    return f"{sizes[0]} tensor x {sizes[1]} pipeline x {sizes[2]} expert"


def _opened(file: Path) -> dict[str, Any]:
    held = open_torch(file)
    if not isinstance(held, dict):
        raise DataError(f"{file}: holds a {type(held).__name__}, not a training's state")
    return held


def _parts(file: Path, places: Mapping[Place, Path], model: ModelConfig) -> list[Part]:
    """What one rank's file holds of the model: one part, or several that take turns."""
    held = _opened(file)
    numbered = [f"model{number}" for number in range(len(held))]
    keys = ["model"] if "model" in held else [key for key in numbered if key in held]
    if not keys:
        raise DataError(f"{file}: holds no model")
    version = held.get("checkpoint_version", 0)
    if version not in (0, 1, 2, 3):
        raise DataError(f"{file}: checkpoint_version {version}: 0, 1, 2 and 3 can be read")
    heads = model.heads // (max(tensor for tensor, *_ in places) + 1)
    return [_part(held[key], float(version), heads, model, str(file)) for key in keys]


def _part(held: Any, version: float, heads: int, model: ModelConfig, where: str) -> Part:
    """One part of the model by our names, in the order of today."""
    part: Part = {}
    for name, matrix in _flat(held, where):
        try:
            ours = local_name(name)
        except ValueError as error:
            raise DataError(f"{where}: {name}: {error}") from error
        if not ours:
            continue
        if ours in part:
            raise DataError(f"{where}: {name}: is there twice")
        old = OLD_QKV.fullmatch(name)
        part[ours] = _in_order(matrix, version, heads, model, f"{where}: {name}") if old else matrix
    return part


def _flat(held: Any, where: str) -> Iterator[tuple[str, Matrix]]:
    """Tensors of nested dicts by names with dots; each dict is looked at once."""
    left, seen = [("", held)], set[int]()
    while left:
        prefix, value = left.pop()
        if not isinstance(value, dict) or id(value) in seen:
            raise DataError(f"{where}: {prefix[:100]}: found no tensors by name")
        seen.add(id(value))
        for key, inner in value.items():
            name = f"{prefix}{key}"
            if len(name) > MOST_LETTERS:
                raise DataError(f"{where}: {name[:100]}...: a name of {len(name):,} letters")
            if isinstance(inner, Matrix):
                yield name, inner
            elif isinstance(inner, dict):
                left.append((f"{name}.", inner))


def _in_order(matrix: Matrix, version: float, heads: int, model: ModelConfig, where: str) -> Matrix:
    """Fused queries, keys and values in the order of today."""
    order = old_order(version, heads, model)
    if order is None:
        return matrix
    if model.groups() != model.heads:
        raise UserError(f"{where}: checkpoint_version {version} with grouped keys cannot be read")
    if matrix.rows != len(order):
        raise DataError(f"{where}: found {matrix.rows} rows, its settings ask for {len(order)}")
    return Ordered([matrix], order, matrix.shape)
