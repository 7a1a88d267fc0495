"""Llama 2 and 3, SmolLM, and what has its shape: RoPE, RMSNorm, a gate, no biases as a rule."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.angles import read_angles, told_angles
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import SIZES, unusual
from megatron_jobs.convert.forms import QKV, VOCABULARY
from megatron_jobs.errors import UserError

OURS, THEIRS = "decoder.layers.{layer}.", "model.layers.{layer}."
ATTENTION, MLP = OURS + "self_attention.", OURS + "mlp."
GATES = {"swiglu": "silu", "geglu": "gelu", "geglu_tanh": "gelu_pytorch_tanh"}
"""Our activation -> their name of its function."""


def has_bias(model: ModelConfig, layer: int) -> bool:
    """Whether linear layers add one."""
    return model.bias


def has_own_output(model: ModelConfig, layer: int) -> bool:
    """Whether the output layer is not the embedding."""
    return not model.tied


def three(kind: str) -> tuple[str, ...]:
    """Names of theirs of queries, keys and values."""
    return tuple(THEIRS + f"self_attn.{name}_proj.{kind}" for name in "qkv")


def gate_up(kind: str) -> tuple[str, ...]:
    """Names of theirs of the two halves of the first matrix of a block."""
    return tuple(THEIRS + f"mlp.{name}_proj.{kind}" for name in ("gate", "up"))


ENDS = (
    Row(
        "embedding.word_embeddings.weight",
        ("model.embed_tokens.weight",),
        VOCABULARY,
        copies=("lm_head.weight",),
    ),
    Row("decoder.final_layernorm.weight", ("model.norm.weight",)),
    Row("output_layer.weight", ("lm_head.weight",), VOCABULARY, has_own_output),
)
NORMS = (
    Row(OURS + "input_layernorm.weight", (THEIRS + "input_layernorm.weight",)),
    Row(OURS + "pre_mlp_layernorm.weight", (THEIRS + "post_attention_layernorm.weight",)),
)
ATTENTION_MATRICES = (
    Row(ATTENTION + "linear_qkv.weight", three("weight"), QKV),
    Row(ATTENTION + "linear_proj.weight", (THEIRS + "self_attn.o_proj.weight",)),
)
BLOCK_MATRICES = (
    Row(MLP + "linear_fc1.weight", gate_up("weight")),
    Row(MLP + "linear_fc2.weight", (THEIRS + "mlp.down_proj.weight",)),
)
BIASES = (
    Row(ATTENTION + "linear_qkv.bias", three("bias"), QKV, has_bias),
    Row(ATTENTION + "linear_proj.bias", (THEIRS + "self_attn.o_proj.bias",), when=has_bias),
    Row(MLP + "linear_fc1.bias", gate_up("bias"), when=has_bias),
    Row(MLP + "linear_fc2.bias", (THEIRS + "mlp.down_proj.bias",), when=has_bias),
)
DENSE = (*ENDS, *NORMS, *ATTENTION_MATRICES, *BLOCK_MATRICES)
"""A dense decoder without biases; Mistral and Qwen have these names too."""
TABLE = (*DENSE, *BIASES)
FREE = SIZES | {"rope_scaling", "activation", "bias"}


def shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes and the activation, which Mistral and Qwen give in the same words."""
    heads, function = config["num_attention_heads"], config.get("hidden_act") or "silu"
    ours = {theirs: name for name, theirs in GATES.items()}
    if function not in ours:
        raise UserError(f"config.json: hidden_act {function!r}: {', '.join(ours)} only")
    return {
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim"),
        "ffn": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "seq_len": config["max_position_embeddings"],
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "activation": ours[function],
        "tied": config.get("tie_word_embeddings") or False,
    }


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    attention, mlp = config.get("attention_bias", False), config.get("mlp_bias", False)
    if attention != mlp:
        raise UserError(f"config.json: attention_bias {attention}, mlp_bias {mlp}: must be equal")
    return {**shape(config), **read_angles(config), "bias": bool(attention)}


def told_shape(model: ModelConfig) -> dict[str, Any]:
    """The way back from `shape`, and from its angles."""
    return {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.groups(),
        "head_dim": model.head_size(),
        "intermediate_size": model.ffn_size(),
        "max_position_embeddings": model.seq_len,
        "vocab_size": model.vocab_size,
        "rms_norm_eps": model.norm_eps,
        "hidden_act": GATES[model.activation],
        "attention_dropout": model.attention_dropout,
        "tie_word_embeddings": model.tied,
        **told_angles(model),
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {**told_shape(model), "attention_bias": model.bias, "mlp_bias": model.bias}


def misfit(model: ModelConfig) -> str:
    """Why a model is no Llama, or nothing."""
    if model.hidden % model.heads:
        return f"heads {model.heads}"
    return unusual(model, free=FREE) or odd_parts(model)


def odd_parts(model: ModelConfig) -> str:
    """What none of the architectures with these words can say."""
    if model.activation not in GATES:
        return f"activation {model.activation}"
    scaling = model.rope_scaling
    return "rope_scaling longrope" if scaling and scaling.kind == "longrope" else ""


LLAMA = Family(
    "llama",
    "llama",
    "LlamaForCausalLM",
    TABLE,
    settings,
    config,
    misfit,
    ignored=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
)
