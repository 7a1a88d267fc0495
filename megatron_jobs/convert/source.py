"""What a conversion reads: a checkpoint of any kind, as our tensors and settings.

Kinds: `hugging_face` (a folder with config.json), `checkpoint` (ours), `torch_dist` (of
megatron-core itself), `legacy` (Megatron-LM's mp_rank_XX folders), `gguf` (one file, or parts).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.convert.bin_files import open_bin_folder
from megatron_jobs.convert.family import Family, as_in_table, ignored_names, rows_of, to_ours
from megatron_jobs.convert.fp8 import check_method, dequantised, of_activations, scheme_of
from megatron_jobs.convert.gguf_file import GGUFFile
from megatron_jobs.convert.gguf_in import open_gguf
from megatron_jobs.convert.gguf_parts import gguf_in
from megatron_jobs.convert.hugging_face import (
    CONFIG,
    DIVISOR,
    TOKENIZER,
    described,
    read_described,
    tokenizer_files,
)
from megatron_jobs.convert.json_file import read_limited_json
from megatron_jobs.convert.legacy import open_legacy
from megatron_jobs.convert.matrix import DTYPES, Matrix
from megatron_jobs.convert.safetensors import open_folder, weight_files
from megatron_jobs.convert.settings import ConversionSettings
from megatron_jobs.convert.torch_dist_in import open_checkpoint
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import file_hash
from megatron_jobs.runtime.saved_steps import NAME, find_checkpoint, read_saved_step

Kind = Literal["hugging_face", "checkpoint", "torch_dist", "legacy", "gguf"]
METADATA = ".metadata"
WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".distcp")
LEGACY_LATEST = "latest_checkpointed_iteration.txt"
CARRIED = "tokenizer"
"""Beside the steps of a converted checkpoint: the tokenizer that came with the model."""


@dataclass(frozen=True)
class Source:
    """An opened checkpoint; no number of it has been read yet."""

    kind: Kind
    path: Path
    """The very folder or file."""
    tensors: dict[str, Matrix]
    """Under our names."""
    model: ModelConfig
    family: Family | None = None
    """Of a Hugging Face model, or one that was one."""
    config: Mapping[str, Any] | None = None
    """The config.json that it has, or came with."""
    tokenizer: Path | None = None
    """A folder with a tokenizer's files."""
    tokenizer_hash: str | None = None
    """Of the tokenizer.json that it was trained with, where known."""
    left_out: tuple[str, ...] = ()
    """Tensors of theirs that our model has no use for: buffers, layers of another purpose."""
    packed_tokenizer: GGUFFile | None = None
    """A file that has the tokenizer within."""
    part_of: str = ""
    """The model_type of a model of more than text, of which this is the language part."""

    @property
    def precision(self) -> Precision:
        """The number format of most weights; fp32 for one that we have no name for."""
        counts: Counter[np.dtype[Any]] = Counter()
        for matrix in self.tensors.values():
            counts[matrix.dtype] += matrix.bytes // max(1, matrix.dtype.itemsize)
        most = counts.most_common(1)[0][0]
        known: dict[np.dtype[Any], Precision] = {dtype: name for name, dtype in DTYPES.items()}
        return known.get(most, "fp32")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of how it was read: a sentence each."""
        if not self.part_of:
            return ()
        count = f"{len(self.left_out)} tensors of other parts are left out"
        return (f"the language part of a model of {self.part_of} alone; {count}",)

    def files(self) -> list[Path]:
        """All that it is read from."""
        if self.packed_tokenizer is not None:
            return [self.packed_tokenizer.path, *self.packed_tokenizer.further]
        if self.path.is_file():
            return [self.path]
        return sorted(path for path in self.path.rglob("*") if path.is_file())


def kind_of(path: Path) -> tuple[Kind, Path]:
    """(kind, the very folder or file) of a checkpoint, or of a folder that holds one.

    Raises: UserError, saying what is looked for, when it is none.
    """
    if path.is_file():
        if path.suffix in WEIGHT_FILES:
            raise UserError(f"{path}: a file of weights alone; name the folder that it lies in")
        return "gguf", path
    if (path / CONFIG).is_file() and not _is_gguf_alone(path):
        return "hugging_face", path
    if (path / LEGACY_LATEST).is_file():
        path = _latest_of_megatron(path)
    if (path / NAME).is_file() or (path / "latest").is_file():
        return "checkpoint", find_checkpoint(path)
    if (path / METADATA).is_file():
        return "torch_dist", path
    if any(path.glob("mp_rank_*")):
        return "legacy", path
    if gguf_in(path):
        return "gguf", path
    if (path / "snapshots").is_dir():
        raise UserError(f"{path}: a cache of models; name one of the folders in its snapshots/")
    known = f"{CONFIG}, manifest.json, latest, {METADATA}, mp_rank_*, *.gguf or {LEGACY_LATEST}"
    raise UserError(f"{path}: no checkpoint that is known: there is no {known} in it")


def _is_gguf_alone(folder: Path) -> bool:
    """Whether config.json stands beside GGUF files and no weights of its own."""
    return (
        bool(gguf_in(folder))
        and not any(folder.glob("*.safetensors"))
        and not any(folder.glob("*.bin"))
    )


def _latest_of_megatron(root: Path) -> Path:
    file = root / LEGACY_LATEST
    word = file.read_text(encoding="utf-8", errors="replace").strip()
    if word != "release" and not (word.isascii() and word.isdigit()):
        raise DataError(f"{file}: found {word[:40]!r}, neither a number nor release")
    found = root / (word if word == "release" else f"iter_{int(word):07}")
    if not found.is_dir():
        raise DataError(f"{file}: names {found.name}, which is not there")
    return found


def open_config(config: ConversionSettings) -> Source:
    """The source of a conversion; raises as `open_source` does."""
    return open_source(
        config.source,
        model=config.model,
        pad_vocab_to=config.pad_vocab_to,
        precision=config.dtype,
    )


def open_source(
    path: Path,
    *,
    model: ModelConfig | None = None,
    pad_vocab_to: int = DIVISOR,
    precision: Precision | None = None,
) -> Source:
    """A checkpoint of any kind.

    Args:
        model: the settings of one that does not hold them (megatron-core's own); of another kind
            they must not be given.
        pad_vocab_to: rows of the embedding, of a model of Hugging Face's.
        precision: what all will be converted to; only then may parts of a tensor differ in it.
    Raises: UserError when it is none, or of a kind that we cannot compute; DataError, naming file
        and tensor, when it does not tell the truth.
    """
    kind, place = kind_of(path)
    if model is not None and kind not in ("torch_dist", "legacy"):
        raise UserError(f"model: must not be set: {place} says itself what model it is")
    if kind == "hugging_face":
        return _open_hugging_face(place, pad_vocab_to, precision)
    if kind == "gguf":
        return _open_gguf(place, pad_vocab_to)
    if kind == "checkpoint":
        return _open_own(place)
    opened = open_checkpoint if kind == "torch_dist" else open_legacy
    tensors, found = opened(place, model)
    return Source(kind, place, tensors, found)


def _open_hugging_face(folder: Path, pad_vocab_to: int, precision: Precision | None) -> Source:
    theirs = open_folder(folder) if weight_files(folder) else open_bin_folder(folder)
    left_out = of_activations(theirs)
    theirs = _without_fp8(theirs, folder, precision)
    found = read_described(folder, pad_vocab_to, theirs)
    tensors = to_ours(theirs, found.family, found.model, precision)
    named = as_in_table(theirs, found.family, found.model)
    _check_copies(named, found.family, found.model, folder)
    hash_ = file_hash(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else None
    beside = folder if tokenizer_files(folder) else None
    return Source(
        "hugging_face", folder, tensors, found.model, found.family, found.config, beside, hash_,
        left_out=(*ignored_names(theirs, found.family, found.model), *left_out),
        part_of=found.part_of,
    )  # fmt: skip


def _without_fp8(
    theirs: dict[str, Matrix], folder: Path, precision: Precision | None
) -> dict[str, Matrix]:
    """The same, weights in fp8 in the format that is asked for, else in that of config.json."""
    config = read_limited_json(folder / CONFIG)
    if not isinstance(config, dict):
        return theirs  # `read_described` says it
    check_method(theirs, config, str(folder))
    said = config.get("dtype") or config.get("torch_dtype")
    named: Precision | None = "fp16" if said == "float16" else "fp32" if said == "float32" else None
    scheme = scheme_of(config, DTYPES[precision or named or "bf16"], str(folder / CONFIG))
    return dict(dequantised(theirs, scheme))


def _check_copies(
    theirs: Mapping[str, Matrix], family: Family, model: ModelConfig, where: Path
) -> None:
    """DataError unless tensors that are one in the model are equal in the file."""
    copied = replace(family, table=tuple(row for row in family.table if row.copies))
    for row in rows_of(copied, model):
        for name in row.copies:
            if name not in theirs:
                continue
            named_too = model.tied or not name.startswith(("lm_head", "embed_out", "output"))
            if named_too and not equal(theirs[name], theirs[row.theirs[0]]):
                rule = f"is not {row.theirs[0]}, which config.json says it is"
                raise DataError(f"{where}: {name}: {rule}")


def equal(one: Matrix, other: Matrix) -> bool:
    """Whether two tensors hold the same bytes; read by pieces."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    left, right = _even_pieces(one), _even_pieces(other)
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def _even_pieces(matrix: Matrix) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Bytes of stretches of rows that depend on the shape alone."""
    step = matrix.piece_rows()
    for start in range(0, matrix.rows, step):
        stop = min(start + step, matrix.rows)
        made = np.empty((stop - start, matrix.columns), matrix.dtype)
        at = 0
        for piece in matrix.read(start, stop):
            made[at : at + len(piece)] = piece
            at += len(piece)
        yield made.reshape(-1).view(np.uint8)


def _open_gguf(place: Path, pad_vocab_to: int) -> Source:
    found = open_gguf(place)
    file = found.file.path
    what = described(dict(found.config), str(file), pad_vocab_to, found.tensors)
    tensors = to_ours(found.tensors, what.family, what.model)
    return Source(
        "gguf", file, tensors, what.model, what.family, what.config, packed_tokenizer=found.file
    )


def _open_own(folder: Path) -> Source:
    record = read_saved_step(folder).record
    try:
        model = ModelConfig(**record["model"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / NAME}: not the settings of a model: {error}") from error
    tensors, _ = open_checkpoint(folder, model)
    config = record.get("hugging_face")
    carried = folder.parent / CARRIED
    return Source(
        "checkpoint",
        folder,
        tensors,
        model,
        config=config if isinstance(config, dict) else None,
        tokenizer=carried if tokenizer_files(carried) else None,
        tokenizer_hash=record.get("tokenizer_hash"),
    )
