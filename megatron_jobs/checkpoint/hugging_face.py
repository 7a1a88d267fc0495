"""Hugging Face folders: config.json, safetensors, tokenizer files; and the way back."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from torch import Tensor

from megatron_jobs.checkpoint.mapping import TABLES, from_hugging_face
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json, write_json

WEIGHTS = "model.safetensors"
GELUS = {"gelu_tanh": "gelu_new", "gelu": "gelu"}
"""Our activation -> transformers' name of it."""
TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "tokenizer.model",
    "vocab.json",
)
"""What goes along; only the first must be there."""
DIVISOR = 128
"""Rows of an embedding: a multiple of it can be cut over any usual number of tensor ranks."""


def architecture_of(model: ModelConfig) -> str:
    """Which table fits a model; UserError naming the setting when none does."""
    llama = model.position == "rope" and model.norm == "rmsnorm" and model.activation == "swiglu"
    gpt2 = model.position == "learned" and model.norm == "layernorm" and model.bias
    if model.experts:
        raise UserError(f"model.experts: {model.experts}: no table for experts; dense models only")
    if model.qk_norm or model.qkv_bias:
        raise UserError("model: no table has norms of q and k, or biases of q, k and v alone")
    if llama:
        return "llama"
    if gpt2 and model.activation in GELUS and model.groups() == model.heads:
        return "gpt2"
    shape = f"position {model.position}, norm {model.norm}, activation {model.activation}"
    raise UserError(
        f"model: {shape}: no such shape; llama: rope, rmsnorm, swiglu; "
        "gpt2: learned, layernorm, gelu or gelu_tanh, bias, kv_heads = heads"
    )


def hugging_face_config(model: ModelConfig, special: Mapping[str, int | None]) -> dict[str, Any]:
    """config.json of a model. The vocabulary is that of the tokenizer, without padding.

    Args:
        special: bos_token_id, eos_token_id, pad_token_id.
    """
    shared = {"vocab_size": model.vocab_size, "tie_word_embeddings": model.tied, **special}
    if architecture_of(model) == "gpt2":
        return shared | {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_layer": model.layers,
            "n_embd": model.hidden,
            "n_head": model.heads,
            "n_inner": model.ffn_size(),
            "n_positions": model.seq_len,
            "activation_function": GELUS[model.activation],
            "layer_norm_epsilon": model.norm_eps,
            "resid_pdrop": model.dropout,
            "embd_pdrop": model.dropout,
            "attn_pdrop": model.attention_dropout,
        }
    return shared | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.groups(),
        "head_dim": model.head_size(),
        "intermediate_size": model.ffn_size(),
        "max_position_embeddings": model.seq_len,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_base},
        "rope_theta": model.rope_base,
        "rms_norm_eps": model.norm_eps,
        "hidden_act": "silu",
        "attention_bias": model.bias,
        "mlp_bias": model.bias,
    }


def model_config_of(config: Mapping[str, Any], pad_vocab_to: int = DIVISOR) -> ModelConfig:
    """Our settings from a config.json; UserError when it is of another architecture or variant."""
    kind = config.get("model_type")
    if kind == "gpt2":
        return _gpt2_settings(config, pad_vocab_to)
    if kind == "llama":
        return _llama_settings(config, pad_vocab_to)
    raise UserError(f"config.json: model_type {kind!r}: no table; there are {', '.join(TABLES)}")


def _llama_settings(config: Mapping[str, Any], pad_vocab_to: int) -> ModelConfig:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise UserError(f"config.json: rope type {kind!r}: only default can be converted")
    heads = config["num_attention_heads"]
    return ModelConfig(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        ffn=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        pad_vocab_to=pad_vocab_to,
        seq_len=config["max_position_embeddings"],
        position="rope",
        rope_base=int(rope.get("rope_theta") or config.get("rope_theta", 10000)),
        norm="rmsnorm",
        norm_eps=config["rms_norm_eps"],
        activation="swiglu",
        bias=_llama_bias(config),
        head_dim=config.get("head_dim"),
        tied=config.get("tie_word_embeddings", False),
    )


def _llama_bias(config: Mapping[str, Any]) -> bool:
    attention, mlp = config.get("attention_bias", False), config.get("mlp_bias", False)
    if attention != mlp:
        raise UserError(f"config.json: attention_bias {attention}, mlp_bias {mlp}: must be equal")
    return bool(attention)


def _gpt2_settings(config: Mapping[str, Any], pad_vocab_to: int) -> ModelConfig:
    return ModelConfig(
        layers=config["n_layer"],
        hidden=config["n_embd"],
        heads=config["n_head"],
        kv_heads=config["n_head"],
        ffn=config.get("n_inner") or 4 * config["n_embd"],
        vocab_size=config["vocab_size"],
        pad_vocab_to=pad_vocab_to,
        seq_len=config["n_positions"],
        position="learned",
        norm="layernorm",
        norm_eps=config["layer_norm_epsilon"],
        activation=_gelu_of(config),
        bias=True,
        tied=config.get("tie_word_embeddings", True),
    )


def _gelu_of(config: Mapping[str, Any]) -> Literal["gelu", "gelu_tanh"]:
    name = config.get("activation_function", "gelu_new")
    if name not in GELUS.values():
        raise UserError(f"config.json: activation_function {name!r}: gelu_new or gelu only")
    return "gelu" if name == "gelu" else "gelu_tanh"


def write_hugging_face(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], tokenizer: Path | None
) -> None:
    """Write a folder that `transformers` and vLLM load as it is."""
    from safetensors.torch import save_file

    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    write_json(folder / "config.json", {**config, "dtype": dtype})
    for name in TOKENIZER_FILES:
        if tokenizer is not None and (tokenizer / name).exists():
            shutil.copyfile(tokenizer / name, folder / name)


def tokenizer_folder(path: Path) -> Path:
    """The folder of a tokenizer, named by itself or by its tokenizer.json; UserError if it is none.

    A Hugging Face folder holds more of a tokenizer than that one file.
    """
    folder = path.parent if path.name == TOKENIZER else path
    if not (folder / TOKENIZER).is_file():
        raise UserError(f"tokenizer: {folder}: no {TOKENIZER} in it; name the folder that holds it")
    return folder


def read_settings(folder: Path, pad_vocab_to: int = DIVISOR) -> tuple[str, ModelConfig]:
    """(architecture, our settings) of a Hugging Face folder.

    Raises: DataError when config.json is missing, lacks something or cannot be true; UserError when
        it is of an architecture that has no table.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise DataError(f"{folder}: no config.json; not a Hugging Face model")
    try:
        config = read_json(file)
        model = model_config_of(config, pad_vocab_to)
    except KeyError as error:
        kind = config["model_type"]
        raise DataError(f"{file}: {error.args[0]}: missing; a {kind} model has it") from error
    except ValidationError as error:
        (first, *_) = error.errors()
        name = ".".join(map(str, first["loc"]))
        raise DataError(f"{file}: {name}: found {first['input']!r}: {first['msg']}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: not the settings of a model: {error}") from error
    for setting, sentence in model.problems():
        raise DataError(f"{file}: {setting}: {sentence}")
    return config["model_type"], model


def read_hugging_face(
    folder: Path, pad_vocab_to: int = DIVISOR
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Settings and our tensors from a folder with one safetensors file, or several with an index.

    Raises: DataError when files are missing, damaged or do not fit together.
    """
    kind, model = read_settings(folder, pad_vocab_to)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(f"{folder}: no .safetensors file")
    theirs: dict[str, Tensor] = {}
    for file in files:
        theirs |= _read_tensors(file)
    return model, from_hugging_face(theirs, model, kind)


def _read_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
    except SafetensorError as error:
        raise DataError(f"{file}: not a whole safetensors file: {error}") from error
    return tensors
