"""OLMo 2: norms after attention and block only, and of all heads together."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.angles import read_angles
from megatron_jobs.convert.families import llama
from megatron_jobs.convert.families.llama import ATTENTION, OURS, THEIRS
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import only, unusual
from megatron_jobs.errors import UserError

NORMS = {
    ATTENTION + "q_layernorm": THEIRS + "self_attn.q_norm",
    ATTENTION + "k_layernorm": THEIRS + "self_attn.k_norm",
    OURS + "post_self_attn_layernorm": THEIRS + "post_attention_layernorm",
    OURS + "post_mlp_layernorm": THEIRS + "post_feedforward_layernorm",
}
"""Ours -> theirs."""
TABLE = (
    *llama.ENDS,
    *(Row(f"{ours}.weight", (f"{theirs}.weight",)) for ours, theirs in NORMS.items()),
    *llama.ATTENTION_MATRICES,
    *llama.BLOCK_MATRICES,
)
FIXED = {"norm_place": "after", "qk_norm": True, "qk_norm_all": True}
FREE = llama.FREE - {"bias"}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, attention_bias=False)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim")
    if head is not None and head * heads != hidden:
        rule = f"{heads} heads must be as wide as hidden_size {hidden}"
        raise UserError(f"config.json: head_dim {head}: {rule}")
    eps = {"norm_eps": config.get("rms_norm_eps", 1e-5)}
    return {**llama.shape(config), **read_angles(config), **eps, **FIXED}


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {**llama.told_shape(model), "attention_bias": False}


def misfit(model: ModelConfig) -> str:
    """Why a model is no OLMo 2, or nothing."""
    if model.head_size() * model.heads != model.hidden:
        return f"head_dim {model.head_dim}"
    return unusual(model, FIXED, free=FREE) or llama.odd_parts(model)


OLMO2 = Family("olmo2", "olmo2", "Olmo2ForCausalLM", TABLE, settings, config, misfit)
