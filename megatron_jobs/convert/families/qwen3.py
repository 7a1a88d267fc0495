"""Qwen 3: norms of each head's queries and keys in place of biases."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families import llama, qwen2
from megatron_jobs.convert.families.llama import ATTENTION, THEIRS
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import only, unusual

HEAD_NORMS = (
    Row(ATTENTION + "q_layernorm.weight", (THEIRS + "self_attn.q_norm.weight",)),
    Row(ATTENTION + "k_layernorm.weight", (THEIRS + "self_attn.k_norm.weight",)),
)
TABLE = (*llama.DENSE, *HEAD_NORMS)
HEAD = 128
"""Columns of a head where config.json does not say it, whatever the hidden size."""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, attention_bias=False)
    return {**qwen2.shape(config), "head_dim": config.get("head_dim", HEAD), "qk_norm": True}


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {**qwen2.told_shape(model), "attention_bias": False}


def misfit(model: ModelConfig) -> str:
    """Why a model is no Qwen 3, or nothing."""
    return unusual(model, {"qk_norm": True}, free=qwen2.FREE) or llama.odd_parts(model)


QWEN3 = Family("qwen3", "qwen3", "Qwen3ForCausalLM", TABLE, settings, config, misfit)
