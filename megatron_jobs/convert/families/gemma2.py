"""Gemma 2: norms on both sides with an offset, windows in turn, capped scores and logits."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.angles import read_angles, told_angles
from megatron_jobs.convert.families import llama
from megatron_jobs.convert.families.llama import OURS, THEIRS
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import SIZES, only, unusual
from megatron_jobs.errors import UserError

FULL, SLIDING = "full_attention", "sliding_attention"
GELU = llama.GATES["geglu_tanh"]
NORMS = {
    "input_layernorm": "input_layernorm",
    "post_self_attn_layernorm": "post_attention_layernorm",
    "pre_mlp_layernorm": "pre_feedforward_layernorm",
    "post_mlp_layernorm": "post_feedforward_layernorm",
}
"""Ours -> theirs, in a layer."""
TABLE = (
    *llama.ENDS,
    *(Row(f"{OURS}{ours}.weight", (f"{THEIRS}{theirs}.weight",)) for ours, theirs in NORMS.items()),
    *llama.ATTENTION_MATRICES,
    *llama.BLOCK_MATRICES,
)
FIXED = {
    "norm_offset": True,
    "norm_place": "both",
    "activation": "geglu_tanh",
}
FREE = SIZES | {
    "embedding_scale",
    "attention_scale",
    "attention_softcap",
    "logit_softcap",
    "window",
    "full_layers",
    "rope_scaling",
}
STRETCHES = ("linear", "llama3", "yarn")
"""Kinds of `rope_scaling`."""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    types = config.get("layer_types") or in_turn(config["num_hidden_layers"], 2)
    return {
        **shape(config, types),
        **read_angles(config, kinds=STRETCHES),
        "attention_softcap": config.get("attn_logit_softcapping", 50.0),
        "logit_softcap": config.get("final_logit_softcapping", 30.0),
    }


def shape(config: Mapping[str, Any], types: list[str]) -> dict[str, Any]:
    """What Gemma 2 and 3 say alike; `types` are those of their layers."""
    only(config, hidden_activation=GELU, attention_bias=False, use_bidirectional_attention=False)
    if config.get("hidden_activation") is None:
        only(config, hidden_act=GELU)
    head, hidden = config.get("head_dim", 256), config["hidden_size"]
    scalar = config.get("query_pre_attn_scalar", 256)
    return {
        "layers": config["num_hidden_layers"],
        "hidden": hidden,
        "heads": config["num_attention_heads"],
        "kv_heads": config["num_key_value_heads"],
        "head_dim": head,
        "ffn": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "seq_len": config["max_position_embeddings"],
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "tied": config.get("tie_word_embeddings", True),
        "embedding_scale": hidden**0.5,
        "attention_scale": None if scalar == head else scalar**-0.5,
        **windows(types, config.get("sliding_window", 4096)),
        **FIXED,
    }


def windows(types: list[str], window: int | None) -> dict[str, Any]:
    """`window` and `full_layers` of layers of these types."""
    odd = sorted(set(types) - {FULL, SLIDING})
    if odd:
        raise UserError(f"config.json: layer_types {odd[0]!r}: {FULL} or {SLIDING} only")
    if SLIDING not in types:
        return {}
    if window is None:
        raise UserError(f"config.json: sliding_window is missing; layer_types has {SLIDING}")
    full = tuple(number for number, kind in enumerate(types) if kind == FULL)
    return {"window": window, "full_layers": full}


def in_turn(layers: int, period: int) -> list[str]:
    """Each `period`th layer sees everything: older files do not write the types."""
    return [SLIDING if number % period else FULL for number in range(1, layers + 1)]


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {
        **told_shape(model),
        **told_angles(model),
        "attn_logit_softcapping": model.attention_softcap,
    }


def told_shape(model: ModelConfig) -> dict[str, Any]:
    """The way back from `shape`."""
    sees_all = set(model.full_layers) if model.window else set(range(model.layers))
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
        "hidden_activation": GELU,
        "attention_bias": False,
        "attention_dropout": model.attention_dropout,
        "query_pre_attn_scalar": scalar(model),
        "sliding_window": model.window or model.seq_len,
        "layer_types": [FULL if n in sees_all else SLIDING for n in range(model.layers)],
        "final_logit_softcapping": model.logit_softcap,
        "tie_word_embeddings": model.tied,
    }


def scalar(model: ModelConfig) -> int:
    """`query_pre_attn_scalar`, a whole number n; the scores' scale is 1 / sqrt(n)."""
    scale = model.attention_scale
    return model.head_size() if scale is None else round(scale**-2)


def misfit(model: ModelConfig) -> str:
    """Why a model is no Gemma 2, or nothing."""
    if model.rope_scaling and model.rope_scaling.kind not in STRETCHES:
        return f"rope_scaling {model.rope_scaling.kind}"
    return unusual(model, FIXED, free=FREE) or odd_scales(model)


def odd_scales(model: ModelConfig) -> str:
    """What config.json of a Gemma cannot say of a model that is otherwise one."""
    if model.embedding_scale != model.hidden**0.5:
        return f"embedding_scale {model.embedding_scale}"
    if model.attention_scale not in (None, scalar(model) ** -0.5):
        return f"attention_scale {model.attention_scale}"
    return f"heads {model.heads}" if model.hidden % model.heads else ""


GEMMA2 = Family("gemma2", "gemma2", "Gemma2ForCausalLM", TABLE, settings, config, misfit)
