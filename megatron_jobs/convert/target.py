"""What a conversion writes: our checkpoint on any mesh, a Hugging Face folder, or a GGUF file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.precision import Precision
from megatron_jobs.convert.family import Family, to_theirs
from megatron_jobs.convert.files import FilePlan, Item
from megatron_jobs.convert.gguf_check import check_gguf
from megatron_jobs.convert.gguf_out import gguf_remarks, plan_gguf
from megatron_jobs.convert.gguf_tokens import has_tokenizer
from megatron_jobs.convert.hugging_face import (
    CONFIG,
    PIECES,
    TOKENIZER,
    fitting_family,
    tokenizer_files,
    written_config,
)
from megatron_jobs.convert.leaves import in_format
from megatron_jobs.convert.matrix import DTYPES, Matrix, Stored
from megatron_jobs.convert.safetensors import open_folder, plan_safetensors
from megatron_jobs.convert.settings import GgufFormat, TargetKind
from megatron_jobs.convert.source import CARRIED, Source, equal
from megatron_jobs.convert.torch_dist_in import open_checkpoint
from megatron_jobs.convert.torch_dist_out import plan_checkpoint
from megatron_jobs.errors import DataError

STEP = "step-00000000"
TORCH_NAMES: dict[Precision, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
GGUF_NAME = "model.gguf"
NO_TOKENIZER = (
    f"no tokenizer in it, which llama.cpp cannot do without: no {TOKENIZER} and no {PIECES} came "
    "with the model; name a folder with one as its tokenizer"
)


@dataclass(frozen=True)
class Target:
    """What is to be made of a source."""

    kind: TargetKind
    precision: Precision | None = None
    """Of all weights; None: each as it is."""
    mesh: Mesh = field(default_factory=Mesh)
    """Of a checkpoint: the ranks whose parts it is cut into; any others can load it too."""
    family: str | None = None
    """Of Hugging Face's tables; None: the one it came from, or the first that fits."""
    gguf: GgufFormat = "f16"
    """Of the matrices of a GGUF file."""
    shard_bytes: int = 5_000_000_000
    """Tensors of a Hugging Face folder in one file, at most."""


@dataclass(frozen=True)
class Planned:
    """A conversion that has not begun."""

    target: Target
    files: list[FilePlan]
    tensors: dict[str, Matrix]
    """What will be written, under the names of the target."""
    family: Family | None = None
    remarks: tuple[str, ...] = ()
    """What a user should know of the result: a sentence each."""


def plan_target(source: Source, target: Target, tokenizer: Path | None) -> Planned:
    """The files that a source becomes.

    Args:
        tokenizer: folder of a tokenizer whose files go along.
    Raises: UserError when the target cannot hold such a model; DataError when tensors are missing,
        odd or left over.
    """
    ours = converted(source.tensors, target.precision)
    if target.kind == "checkpoint":
        return _plan_checkpoint(source, target, ours, tokenizer)
    family = family_for(source, target)
    theirs = to_theirs(ours, family, source.model)
    before = source.config
    name = TORCH_NAMES[target.precision or source.precision]
    config = written_config(
        source.model,
        family,
        dtype=name,
        tokenizer=tokenizer,
        before=before,
        other_tokenizer=tokenizer != source.tokenizer and source.packed_tokenizer is None,
    )
    if target.kind == "gguf":
        within = tokenizer if tokenizer and has_tokenizer(tokenizer) else None
        files = plan_gguf(theirs, config, GGUF_NAME, form=target.gguf, tokenizer=within)
        said = (*gguf_remarks(theirs, config, target.gguf), *(() if within else (NO_TOKENIZER,)))
        return Planned(target, files, theirs, family, said)
    files = plan_safetensors(theirs, shard_bytes=target.shard_bytes)
    files.append(_text(CONFIG, config))
    files += _copied("", tokenizer)
    return Planned(target, files, theirs, family)


def family_for(source: Source, target: Target) -> Family:
    """The table that a source is written by."""
    if target.family is None and source.config is not None:
        kind = source.config.get("model_type")
        fits = [f for f in _families() if f.model_type == kind and not f.misfit(source.model)]
        if fits:
            return fits[0]
    return fitting_family(source.model, target.family)


def _families() -> Iterator[Family]:
    from megatron_jobs.convert.families import FAMILIES

    yield from FAMILIES.values()


def _plan_checkpoint(
    source: Source, target: Target, ours: dict[str, Matrix], tokenizer: Path | None
) -> Planned:
    for setting, sentence in source.model.mesh_problems(target.mesh):
        raise DataError(f"{source.path}: {setting}: {sentence}")
    record: dict[str, Any] = {
        "tokenizer_hash": source.tokenizer_hash,
        "hugging_face": dict(source.config) if source.config is not None else None,
    }
    record["precision"] = target.precision or source.precision
    files = plan_checkpoint(ours, source.model, target.mesh, None, record=record)
    return Planned(target, [*files, *_copied(f"{CARRIED}/", tokenizer)], ours, source.family)


def converted(tensors: Mapping[str, Matrix], precision: Precision | None) -> dict[str, Matrix]:
    """Our tensors in a number format; None: each in its own."""
    if precision is None:
        return dict(tensors)
    dtype = DTYPES[precision]
    return {name: in_format(name, matrix, dtype) for name, matrix in tensors.items()}


def _text(name: str, value: Any) -> FilePlan:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    return FilePlan(name, [Item(text.encode())])


def _copied(prefix: str, tokenizer: Path | None) -> list[FilePlan]:
    if tokenizer is None:
        return []
    found = {path.relative_to(tokenizer): path for path in tokenizer_files(tokenizer)}
    return [FilePlan(f"{prefix}{name.as_posix()}", [_bytes_of(p)]) for name, p in found.items()]


def _bytes_of(path: Path) -> Item:
    """A file as it is, mapped: a large vocabulary takes no memory."""
    if path.stat().st_size == 0:
        return Item()
    return Item(matrix=Stored(np.memmap(path, np.uint8, mode="r")))


def check_written(part: Path, planned: Planned, source: Source) -> int:
    """How many tensors were read back and are what was to be written, to the bit.

    Raises: DataError naming the first that is not.
    """
    if planned.target.kind == "gguf":
        return check_gguf(part / GGUF_NAME, planned.tensors, planned.target.gguf)
    if planned.target.kind == "hugging_face":
        found = open_folder(part)
    else:
        found, _ = open_checkpoint(part / STEP, source.model)
    left = set(found) ^ set(planned.tensors)
    if left:
        raise DataError(f"{part}: {min(left)}: is in one of source and result only")
    for name, matrix in planned.tensors.items():
        if not equal(found[name], matrix):
            raise DataError(f"{part}: {name}: what was written is not what was read")
    return len(found)


def largest_bytes(tensors: Mapping[str, Matrix]) -> int:
    """Of the largest tensor."""
    return max((matrix.bytes for matrix in tensors.values()), default=0)


def numbers_of(tensors: Mapping[str, Matrix]) -> int:
    """Of all tensors."""
    return sum(int(np.prod(matrix.shape)) for matrix in tensors.values())
