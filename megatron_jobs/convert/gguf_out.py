"""A model as one GGUF file, for llama.cpp and what is built on it.

R rows, C columns. Matrices are written in the wished format; vectors, norms, routers and learned
positions as fp32, as llama.cpp's own converter does. A matrix whose rows are no whole blocks stays
fp16. Of q4_0 the output layer (the embedding, if it is both) is q8_0, where llama.cpp takes Q6_K.
"""

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.files import FilePlan, Item
from megatron_jobs.convert.gguf_changes import stacked, to_gguf
from megatron_jobs.convert.gguf_encoders import bert_metadata, t5_metadata, t5_remarks
from megatron_jobs.convert.gguf_file import ALIGNMENT, GGUFFile
from megatron_jobs.convert.gguf_in import EMBEDDING, OUTPUT, hugging_face_of
from megatron_jobs.convert.gguf_kinds import KINDS, PLAIN, Bounded, Kind, Quantised
from megatron_jobs.convert.gguf_latent import apart, latent_metadata, latent_remarks
from megatron_jobs.convert.gguf_names import (
    ARCHITECTURES,
    LAYERS,
    Architecture,
    layers_of,
    written_out,
)
from megatron_jobs.convert.gguf_rope import rope_in, rope_metadata
from megatron_jobs.convert.gguf_settings import metadata_of
from megatron_jobs.convert.gguf_tokens import tokenizer_metadata
from megatron_jobs.convert.gguf_values import header_bytes, plain
from megatron_jobs.convert.gguf_wordpiece import wordpiece_metadata
from megatron_jobs.convert.hugging_face import described
from megatron_jobs.convert.matrix import Converted, Matrix, Stored
from megatron_jobs.errors import DataError, UserError

GgufFormat = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
FILE_TYPES: dict[GgufFormat, int] = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
"""general.file_type. Source: llama_ftype in llama.h."""
QUANTIZATION = 2
"""Version of the formats of blocks."""
WIDE = (
    *("_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "token_types.weight"),
    *("attn_rel_b.weight", "cross_attn_rel_b.weight"),
)
"""Ends of names that stay fp32."""
OF_TRAINING = {"dropout", "attention_dropout", "balance_loss", "init_std"}
"""Settings of a model that its logits do not depend on."""


def plan_gguf(
    tensors: Mapping[str, Matrix],
    config: Mapping[str, Any],
    name: str,
    *,
    form: GgufFormat = "f16",
    tokenizer: Path | None = None,
) -> list[FilePlan]:
    """The GGUF file of a model, one plan.

    Args:
        tensors: by Hugging Face's names, all of them.
        config: config.json.
        name: of the file.
        tokenizer: folder with tokenizer.json; None: a file without one, which no chat can use.
    Raises: UserError for a model or a tokenizer that llama.cpp has no words for; DataError for a
        tensor that is missing or has no place.
    """
    architecture = architecture_of(config)
    metadata, factors = model_metadata(architecture, config, form)
    named = gguf_tensors(tensors, architecture, config)
    named |= {key: Stored(value) for key, value in factors.items()}
    model = described(dict(config), "config.json", names=tensors).model
    _check_read_back(named, metadata, model, free=architecture.head_settings)
    if tokenizer is not None:
        rows = named[EMBEDDING].rows
        words = wordpiece_metadata(tokenizer, rows)
        metadata |= tokenizer_metadata(tokenizer, rows) if words is None else words
    kinds = {key: kind_for(key, matrix, form, named) for key, matrix in named.items()}
    written = {key: _in_kind(key, matrix, kinds[key]) for key, matrix in named.items()}
    shapes = {key: (matrix.shape, kinds[key]) for key, matrix in named.items()}
    header = header_bytes(metadata, shapes, {key: m.bytes for key, m in written.items()})
    return [FilePlan(name, [Item(header), *map(_padded, written.values())])]


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The table of a config.json; UserError when llama.cpp's files have none that we know."""
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise UserError(f"config.json: model_type {kind!r}: no GGUF table; there are {known}")
    return ARCHITECTURES[kind]


def gguf_tensors(
    tensors: Mapping[str, Matrix], architecture: Architecture, config: Mapping[str, Any]
) -> dict[str, Matrix]:
    """Each tensor under GGUF's name, layer by layer; DataError for a missing or odd one."""
    tensors = architecture.kept(tensors)
    found: dict[str, Matrix] = {}
    used: set[str] = set()
    for line in written_out(architecture, layers_of(config)):
        names = [line.theirs]
        if "{expert}" in line.theirs:
            names = _experts(line.theirs, tensors)
        if all(name in tensors for name in names):
            parts = [tensors[name] for name in names]
            whole = stacked(parts) if "{expert}" in line.theirs else parts[0]
            found[line.gguf] = to_gguf(whole, line.change, config)
            used.update(names)
        elif not line.optional:
            raise DataError(f"{names[0]}: missing; it makes {line.gguf}")
    left = set(tensors) - used
    if left:
        names = sorted(left)[:3]
        raise DataError(f"{len(left)} tensors have no place in GGUF: {', '.join(names)}")
    if architecture.name == "deepseek2":
        found = apart(found, config)
    return dict(sorted(found.items(), key=lambda item: _layer(item[0])))


def _experts(name: str, tensors: Mapping[str, Matrix]) -> list[str]:
    """The names of all experts there are; the first of them where there is none."""
    names = [name.replace("{expert}", "0")]
    while (following := name.replace("{expert}", str(len(names)))) in tensors:
        names.append(following)
    return names


def _layer(name: str) -> tuple[str, int]:
    found = LAYERS.match(name)
    return (found[1], int(found[2])) if found else ("", -1)


def model_metadata(
    architecture: Architecture, config: Mapping[str, Any], form: GgufFormat
) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """(metadata, tensors of factors) of a model without its tokenizer."""
    prefix = architecture.name
    found: dict[str, Any] = {
        "general.architecture": prefix,
        "general.type": "model",
        "general.name": str(config.get("_name_or_path") or architecture.model_type),
        "general.file_type": np.uint32(FILE_TYPES[form]),
        "general.quantization_version": np.uint32(QUANTIZATION),
        f"{prefix}.vocab_size": np.uint32(config["vocab_size"]),
    }
    if architecture.model_type == "gpt2":
        config = {**config, "n_inner": config.get("n_inner") or 4 * config["n_embd"]}
    found |= metadata_of(config, prefix, architecture.model_type)
    if f"{prefix}.attention.key_length" in found:
        found[f"{prefix}.attention.value_length"] = found[f"{prefix}.attention.key_length"]
    if prefix in _PLAIN:
        return found | _PLAIN[prefix](config, found), {}
    if prefix == "deepseek2":
        angles, _ = rope_metadata(config, prefix, config["qk_rope_head_dim"])
        return found | latent_metadata(config, rope_in(config)) | angles, {}
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    angles, factors = rope_metadata(config, prefix, head)
    if architecture.model_type == "gemma3_text":
        local = (config.get("rope_parameters") or {}).get("sliding_attention", {})
        base = local.get("rope_theta", config.get("rope_local_base_freq", 10000.0))
        angles[f"{prefix}.rope.freq_base_swa"] = np.float32(base)
    return found | angles, factors


_PLAIN: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "gpt2": lambda config, found: {},
    "bert": lambda config, found: bert_metadata(config),
    "t5": lambda config, found: t5_metadata(found),
}
"""Without rotary angles: (config.json, metadata so far) -> further metadata."""


def _check_read_back(
    named: dict[str, Matrix],
    metadata: dict[str, Any],
    model: ModelConfig,
    *,
    free: Collection[str],
) -> None:
    """Raise UserError when a reader would take the file for another model than it is."""
    words = {key: plain(value) for key, value in metadata.items()}
    config, tensors = hugging_face_of(GGUFFile(Path("GGUF"), words, named, {}))
    here, there = _spelled(model), _spelled(described(config, "GGUF", names=tensors).model)
    for key in here.keys() - OF_TRAINING - set(free):
        if here[key] != there[key] and not _close(here[key], there[key]):
            rule = f"as GGUF it would be read as {there[key]!r}"
            raise UserError(f"model.{key}: found {here[key]!r}; {rule}")


def _spelled(model: ModelConfig) -> dict[str, Any]:
    """All settings, with the sizes that follow from others."""
    return model.model_dump() | {"head_dim": model.head_size(), "kv_heads": model.groups()}


def _close(one: Any, other: Any) -> bool:
    """Whether numbers differ by no more than fp32, which the metadata is in, can tell."""
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return numbers and math.isclose(one, other, rel_tol=1e-6)


def kind_for(name: str, matrix: Matrix, form: GgufFormat, all_: Mapping[str, Matrix]) -> Kind:
    """The format of a tensor of GGUF's, when matrices are to be `form`."""
    if len(matrix.shape) == 1 or name.endswith(WIDE):
        return KINDS["F32"]
    last = OUTPUT if OUTPUT in all_ else EMBEDDING
    kind = KINDS["Q8_0" if form == "q4_0" and name == last else form.upper()]
    return KINDS["F16"] if matrix.columns % kind.block else kind


def gguf_remarks(
    tensors: Mapping[str, Matrix], config: Mapping[str, Any], form: GgufFormat
) -> list[str]:
    """What a user should know of a file that `plan_gguf` can make: a sentence each."""
    architecture = architecture_of(config)
    named = gguf_tensors(tensors, architecture, config)
    block = KINDS[form.upper()].block
    kinds = {name: kind_for(name, matrix, form, named) for name, matrix in named.items()}
    wide = [name for name, kind in kinds.items() if kind.name == "F16" and block > 1]
    said = []
    if wide:
        rule = f"have rows that are no whole blocks of {block}"
        said.append(f"{len(wide)} matrices stay fp16, they {rule}: {', '.join(wide[:3])}")
    if config.get("model_type") in ("mistral", "mixtral") and config.get("sliding_window"):
        window = config["sliding_window"]
        said.append(f"llama.cpp sees all tokens where this model sees the last {window}")
    if architecture.name == "deepseek2":
        said += latent_remarks(config)
    if architecture.name == "t5":
        said += t5_remarks(config, own_output=OUTPUT in named)
    left = len(tensors) - len(architecture.kept(tensors))
    if left:
        rule = "llama.cpp has the encoder alone"
        said.append(f"{left} tensors of the heads are left out, {rule}")
    return said


def _in_kind(name: str, matrix: Matrix, kind: Kind) -> Matrix:
    if kind.block > 1:
        return Quantised(matrix, kind)
    dtype = PLAIN[kind.name]
    if matrix.dtype == dtype:
        return matrix
    return Bounded(matrix, name) if kind.name == "F16" else Converted(matrix, dtype)


def _padded(matrix: Matrix) -> Item:
    return Item(matrix=matrix, after=bytes(-matrix.bytes % ALIGNMENT))
