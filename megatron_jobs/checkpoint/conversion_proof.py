"""The proof of one conversion: what was written answers as what was read."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from megatron_jobs.checkpoint.diagnosis import Models
from megatron_jobs.checkpoint.fill import fill
from megatron_jobs.checkpoint.gguf_models import (
    open_gguf_model,
    rounded_matrices,
    silent,
    told,
    without_heads,
)
from megatron_jobs.checkpoint.model import open_model
from megatron_jobs.checkpoint.prompts import Prompt, fixed_prompts
from megatron_jobs.checkpoint.proof import open_theirs, prove_models, rounded
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.convert.conversion import Conversion
from megatron_jobs.convert.gguf_reread import UnreadableError, reread
from megatron_jobs.convert.target import GGUF_NAME
from megatron_jobs.model.build import build_model
from megatron_jobs.parallel.groups import close, connect, open_groups
from megatron_jobs.runtime.rank import ALONE

Open = Callable[[], Any]
GGUF_PRECISIONS: dict[str, Precision] = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
"""Formats of a GGUF file whose numbers are not quantised."""


def prompts_of(conversion: Conversion) -> list[Prompt]:
    """What both models will be asked: chosen before anything is written, since a tokenizer that
    does not fit its model is a reason not to begin."""
    model = conversion.source.model
    nowhere = Path("/nonexistent")  # no tokenizer: random tokens only
    return fixed_prompts(conversion.tokenizer or nowhere, model.vocab_size, model.seq_len)


def prove_conversion(
    conversion: Conversion, prompts: Sequence[Prompt], part: Path, out: Path
) -> dict[str, Any]:
    """Run the model of ours and that of transformers, one of which was made of the other.

    A GGUF file, read or written, is read by llama.cpp's package too.

    Args:
        prompts: see `prompts_of`.
        part: what was written, not yet under its name.
        out: that name, for errors.
    Returns: all that was compared; nothing but a word where neither is a model of transformers.
    Raises: DataError, naming the first layer that differs and why, when they are not the same. Of
        a GGUF file of quantised numbers the difference is told, not judged.
    """
    target, model = conversion.planned.target, conversion.source.model
    model = without_heads(model) if target.kind == "gguf" else model
    theirs = _theirs(conversion, part, model)
    if theirs is None:
        return {"logits": "neither the source nor the result is a model of transformers"}
    found = _reread(conversion, part)
    round_ = partial(_rounded, conversion)
    connect(ALONE, part.parent)
    open_groups(Mesh(), 0)
    try:
        models = Models(
            lambda: round_(_ours(conversion, part, model)),
            lambda: round_(told(theirs, out)),
            model,
        )
        with silent():
            proof = prove_models(models, prompts)
    finally:
        close()
    if target.kind != "gguf" or target.gguf in GGUF_PRECISIONS:
        proof.check(out)
    return proof.record() | found


def _reread(conversion: Conversion, part: Path) -> dict[str, Any]:
    """What llama.cpp's package reads in the files of GGUF; a source that it cannot read is told."""
    found: dict[str, Any] = {}
    if conversion.planned.target.kind == "gguf":
        found["tensors_read_by_gguf"] = reread(part / GGUF_NAME)
    if conversion.source.kind == "gguf":
        try:
            found["source_tensors_read_by_gguf"] = reread(conversion.source.path)
        except UnreadableError as error:
            found["remarks"] = [*conversion.planned.remarks, str(error)]
    return found


def _rounded(conversion: Conversion, module: Any) -> Any:
    """A side, rounded as the result was."""
    dtype = _precision(conversion)
    if conversion.planned.target.kind == "gguf":
        return rounded_matrices(module, dtype)
    return rounded(module, dtype)


def _precision(conversion: Conversion) -> Precision:
    """What both sides are rounded to, so that the source is rounded as the result was."""
    target = conversion.planned.target
    if target.kind == "gguf":
        return GGUF_PRECISIONS.get(target.gguf, "fp32")
    return target.precision or conversion.source.precision


def _ours(conversion: Conversion, part: Path, model: ModelConfig) -> Any:
    """The checkpoint that was written or read, or else the tensors that were read."""
    source, target = conversion.source, conversion.planned.target
    if model == source.model and "checkpoint" in (target.kind, source.kind):
        place = part if target.kind == "checkpoint" else source.path
        (chunk,) = open_model(place, Mesh(), "fp32")
        return chunk
    (chunk,) = build_model(model, Mesh(), "fp32", seed=None)
    fill([chunk], source.tensors)
    return chunk


def _theirs(conversion: Conversion, part: Path, model: ModelConfig) -> Open | None:
    """Opens the model of transformers; the result's where that is one, else the source's."""
    source, kind = conversion.source, conversion.planned.target.kind
    if kind == "hugging_face":
        return lambda: open_theirs(part, model)
    if kind == "gguf":
        return lambda: open_gguf_model(part / GGUF_NAME)
    if source.kind == "hugging_face":
        return lambda: open_theirs(source.path, model)
    if source.kind == "gguf":
        return lambda: open_gguf_model(source.path)
    return None
