"""A GGUF file as Hugging Face would have it: tensors by its names, config.json, tokenizer files.

Quantised tensors are taken apart to fp32 when they are read, with no loss: fp32 holds each number
that a block can mean.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs.convert.gguf_changes import to_hugging_face, unstacked
from megatron_jobs.convert.gguf_encoders import bert_config, t5_config
from megatron_jobs.convert.gguf_file import GGUFFile
from megatron_jobs.convert.gguf_latent import latent_config, together
from megatron_jobs.convert.gguf_names import (
    ARCHITECTURES,
    FACTORS,
    LAYERS,
    Architecture,
    Line,
    layers_of,
    written_out,
)
from megatron_jobs.convert.gguf_parts import read_model
from megatron_jobs.convert.gguf_rope import BASE, rope_of
from megatron_jobs.convert.gguf_settings import model_type_of, settings_of
from megatron_jobs.convert.matrix import Converted, Matrix
from megatron_jobs.errors import DataError

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
IDS = ("bos_token_id", "eos_token_id", "padding_token_id")


@dataclass(frozen=True)
class OpenedGGUF:
    """What a Hugging Face folder of the same model would hold."""

    file: GGUFFile
    config: dict[str, Any]
    """config.json."""
    tensors: dict[str, Matrix]
    """By Hugging Face's names; all of one number format, or fp32."""


def open_gguf(path: Path) -> OpenedGGUF:
    """The model of a GGUF file, or of several; nothing but headers is read.

    Args:
        path: a file, one of the parts of a model, or the folder that it lies in.

    Raises: DataError when the file lies, lacks a tensor or has one that no table names; UserError
        when its architecture, or a variant of one, has no table.
    """
    file = read_model(path)
    config, tensors = hugging_face_of(file)
    return OpenedGGUF(file, config, _of_one_format(tensors))


def hugging_face_of(file: GGUFFile) -> tuple[dict[str, Any], dict[str, Matrix]]:
    """(config.json, tensors by Hugging Face's names) of a file; the errors are `open_gguf`'s."""
    where = str(file.path)
    names = {name: architecture.name for name, architecture in ARCHITECTURES.items()}
    architecture = ARCHITECTURES[model_type_of(file.metadata, names, where)]
    config = settings_of(file.metadata, architecture.name, architecture.model_type, where)
    config |= _derived(file, config, architecture)
    return config, hugging_face_tensors(file, architecture, config)


def _derived(
    file: GGUFFile, config: Mapping[str, Any], architecture: Architecture
) -> dict[str, Any]:
    """What config.json says and follows from the tensors, or needs more than one value."""
    if EMBEDDING not in file.tensors:
        raise DataError(f"{file.path}: {EMBEDDING}: missing")
    own: dict[str, Any] = {
        "vocab_size": file.tensors[EMBEDDING].rows,
        "tie_word_embeddings": OUTPUT not in file.tensors,
    }
    for name in IDS:
        value = file.metadata.get(f"tokenizer.ggml.{name}")
        if isinstance(value, int):
            own[name.replace("padding", "pad")] = value
    special = _SPECIAL.get(architecture.model_type, _angles)
    try:
        return own | special(file, config, architecture.name)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise DataError(f"{file.path}: not the settings of a model: {error}") from error


def _angles(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Of all that have rotary angles; heads, groups and biases are spelled out too."""
    heads = config["num_attention_heads"]
    turned = file.metadata.get(f"{prefix}.rope.dimension_count")
    head = config.get("head_dim") or turned or config["hidden_size"] // heads
    rope = rope_of(file.metadata, prefix, file.tensors, head, str(file.path))
    own: dict[str, Any] = {"rope_parameters": rope, "rope_theta": rope["rope_theta"]}
    own["num_key_value_heads"] = config.get("num_key_value_heads") or heads
    if prefix in ("llama", "qwen3", "qwen3moe", "gemma2", "gemma3"):
        own["head_dim"] = head
    if prefix == "llama":
        own["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
        own["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    return own


def _gemma2(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    own = _angles(file, config, prefix)
    own["query_pre_attn_scalar"] = query_scalar(config, own["head_dim"], 46)
    layers = range(config["num_hidden_layers"])
    own["layer_types"] = [f"{'full' if n % 2 else 'sliding'}_attention" for n in layers]
    return own


def _gemma3(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    own = _angles(file, config, prefix)
    own["query_pre_attn_scalar"] = query_scalar(config, own["head_dim"], 62)
    local = file.metadata.get(f"{prefix}.rope.freq_base_swa", BASE)
    own["rope_parameters"] = {
        "full_attention": own["rope_parameters"],
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }
    layers = range(config["num_hidden_layers"])
    own["layer_types"] = [f"{'sliding' if (n + 1) % 6 else 'full'}_attention" for n in layers]
    return own | {"rope_local_base_freq": local}


def query_scalar(config: Mapping[str, Any], head: int, layers_of_largest: int) -> int:
    """Scores are divided by its root. llama.cpp knows the 27B models by their layers."""
    if config["num_hidden_layers"] == layers_of_largest:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return head


def _phi3(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    own = _angles(file, config, prefix)
    share = _share(file, config, prefix)
    own["partial_rotary_factor"] = own["rope_parameters"]["partial_rotary_factor"] = share
    length = file.metadata.get(f"{prefix}.rope.scaling.original_context_length")
    if length is not None:
        own["original_max_position_embeddings"] = length
    if "tokenizer.ggml.padding_token_id" not in file.metadata:
        own["pad_token_id"] = None  # else transformers takes one that may have no row
    return own


def _neox(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    own = _angles(file, config, prefix)
    share = _share(file, config, prefix)
    own["rotary_pct"] = own["rope_parameters"]["partial_rotary_factor"] = share
    return own | {"rotary_emb_base": own["rope_theta"]}


def _share(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> float:
    head = config["hidden_size"] // config["num_attention_heads"]
    return float(file.metadata.get(f"{prefix}.rope.dimension_count", head) / head)


def _gpt2(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {}


def _latent(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    turned = config["qk_rope_head_dim"]
    rope = rope_of(file.metadata, prefix, file.tensors, turned, str(file.path))
    return latent_config(file.metadata, config, rope)


def _bert(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return bert_config(file.metadata, file.tensors)


def _t5(file: GGUFFile, config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return t5_config(file.tensors, tied=OUTPUT not in file.tensors)


_SPECIAL: dict[str, Callable[[GGUFFile, Mapping[str, Any], str], dict[str, Any]]] = {
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi3": _phi3,
    "gpt_neox": _neox,
    "gpt2": _gpt2,
    "deepseek_v2": _latent,
    "deepseek_v3": _latent,
    "bert": _bert,
    "t5": _t5,
}


def hugging_face_tensors(
    file: GGUFFile, architecture: Architecture, config: Mapping[str, Any]
) -> dict[str, Matrix]:
    """Each of a file's tensors under its other name, once; DataError for a missing or odd one."""
    layers = layers_of(config)
    _check_layers(file, layers)
    if architecture.name == "deepseek2":
        file = replace(file, tensors=together(file.tensors, config))
    found: dict[str, Matrix] = {}
    left = set(file.tensors) - set(FACTORS)
    for line in written_out(architecture, layers):
        if line.gguf in left and _is_meant(line, file):
            found |= _renamed(file, line, config)
            left.remove(line.gguf)
        elif not line.optional:
            raise DataError(f"{file.path}: {line.gguf}: missing")
    if left:
        names = ", ".join(sorted(left)[:3])
        model = f"a {architecture.model_type}"
        raise DataError(f"{file.path}: {len(left)} tensors have no place in {model}: {names}")
    return found


def _is_meant(line: Line, file: GGUFFile) -> bool:
    """T5's ffn_up is wi_1 beside a gate and wi without."""
    gate = line.gguf.replace("ffn_up", "ffn_gate")
    if line.theirs.endswith(".DenseReluDense.wi_1.weight"):
        return gate in file.tensors
    return not line.theirs.endswith(".DenseReluDense.wi.weight") or gate not in file.tensors


def _check_layers(file: GGUFFile, layers: Mapping[str, int]) -> None:
    """Before a table is written out for as many as a lying file may name."""
    found = [match for name in file.tensors if (match := LAYERS.match(name))]
    for stack, count in layers.items():
        numbers = [int(m[2]) for m in found if m[1] == stack and len(m[2]) < 9]
        there = max(numbers, default=-1) + 1
        if count != there:
            kind = stack.replace(".", " ")
            raise DataError(f"{file.path}: {kind}block_count {count}, tensors of {there} layers")


def _renamed(file: GGUFFile, line: Line, config: Mapping[str, Any]) -> dict[str, Matrix]:
    matrix = file.tensors[line.gguf]
    try:
        if "{expert}" not in line.theirs:
            return {line.theirs: to_hugging_face(matrix, line.change, config)}
        parts = unstacked(matrix)
    except (ValueError, ArithmeticError) as error:
        shape = list(matrix.shape)
        raise DataError(f"{file.path}: {line.gguf}: found {shape}: {error}") from error
    return {line.theirs.replace("{expert}", str(n)): part for n, part in enumerate(parts)}


def _of_one_format(tensors: dict[str, Matrix]) -> dict[str, Matrix]:
    """fp32 for all where matrices are of several formats; q, k and v must be alike to be joined."""
    formats = {m.dtype for m in tensors.values() if len(m.shape) > 1}
    if len(formats) < 2:
        return tensors
    wanted = np.dtype(np.float32)
    return {n: m if m.dtype == wanted else Converted(m, wanted) for n, m in tensors.items()}
