"""Llama 2 and 3, SmolLM, and what has its shape: RoPE, RMSNorm, SwiGLU."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.forms import QKV, VOCABULARY
from megatron_jobs.errors import UserError

OURS, THEIRS = "decoder.layers.{layer}.", "model.layers.{layer}."
ATTENTION, MLP = OURS + "self_attention.", OURS + "mlp."


def has_bias(model: ModelConfig, layer: int) -> bool:
    """Whether linear layers add one."""
    return model.bias


def has_own_output(model: ModelConfig, layer: int) -> bool:
    """Whether the output layer is not the embedding."""
    return not model.tied


def _three(kind: str) -> tuple[str, ...]:
    return tuple(THEIRS + f"self_attn.{name}_proj.{kind}" for name in "qkv")


def _gate_up(kind: str) -> tuple[str, ...]:
    return tuple(THEIRS + f"mlp.{name}_proj.{kind}" for name in ("gate", "up"))


TABLE = (
    Row(
        "embedding.word_embeddings.weight",
        ("model.embed_tokens.weight",),
        VOCABULARY,
        copies=("lm_head.weight",),
    ),
    Row(OURS + "input_layernorm.weight", (THEIRS + "input_layernorm.weight",)),
    Row(ATTENTION + "linear_qkv.weight", _three("weight"), QKV),
    Row(ATTENTION + "linear_qkv.bias", _three("bias"), QKV, has_bias),
    Row(ATTENTION + "linear_proj.weight", (THEIRS + "self_attn.o_proj.weight",)),
    Row(ATTENTION + "linear_proj.bias", (THEIRS + "self_attn.o_proj.bias",), when=has_bias),
    Row(OURS + "pre_mlp_layernorm.weight", (THEIRS + "post_attention_layernorm.weight",)),
    Row(MLP + "linear_fc1.weight", _gate_up("weight")),
    Row(MLP + "linear_fc1.bias", _gate_up("bias"), when=has_bias),
    Row(MLP + "linear_fc2.weight", (THEIRS + "mlp.down_proj.weight",)),
    Row(MLP + "linear_fc2.bias", (THEIRS + "mlp.down_proj.bias",), when=has_bias),
    Row("decoder.final_layernorm.weight", ("model.norm.weight",)),
    Row("output_layer.weight", ("lm_head.weight",), VOCABULARY, has_own_output),
)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    heads = config["num_attention_heads"]
    attention, mlp = config.get("attention_bias", False), config.get("mlp_bias", False)
    if attention != mlp:
        raise UserError(f"config.json: attention_bias {attention}, mlp_bias {mlp}: must be equal")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return {
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim"),
        "ffn": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "seq_len": config["max_position_embeddings"],
        "rope_base": int(rope.get("rope_theta") or config.get("rope_theta", 10000)),
        "norm_eps": config["rms_norm_eps"],
        "bias": bool(attention),
        "tied": config.get("tie_word_embeddings", False),
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.groups(),
        "head_dim": model.head_size(),
        "intermediate_size": model.ffn_size(),
        "max_position_embeddings": model.seq_len,
        "vocab_size": model.vocab_size,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_base},
        "rope_theta": model.rope_base,
        "rms_norm_eps": model.norm_eps,
        "hidden_act": "silu",
        "attention_bias": model.bias,
        "mlp_bias": model.bias,
        "tie_word_embeddings": model.tied,
    }


def misfit(model: ModelConfig) -> str:
    """Why a model is no Llama, or nothing."""
    plain = {"position": "rope", "norm": "rmsnorm", "activation": "swiglu", "experts": 0}
    plain |= {"qk_norm": False, "qkv_bias": False, "norm_place": "before", "latent": None}
    wrong = [name for name, value in plain.items() if getattr(model, name) != value]
    return f"{wrong[0]} {getattr(model, wrong[0])}" if wrong else ""


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
