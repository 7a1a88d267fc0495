"""Qwen 3 MoE: narrow experts, queries and keys of each head normalised (arXiv:2505.09388)."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families.llama import ATTENTION_MATRICES, ENDS, NORMS
from megatron_jobs.convert.families.qwen2_moe import FREE, mixture, odd_mixture, told_mixture
from megatron_jobs.convert.families.qwen3 import HEAD_NORMS
from megatron_jobs.convert.families.sparse import BLOCKS, shape, told_shape
from megatron_jobs.convert.family import Family
from megatron_jobs.convert.fit import only, unusual

TABLE = (*ENDS, *NORMS, *ATTENTION_MATRICES, *HEAD_NORMS, *BLOCKS)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, attention_bias=False)
    return {
        **shape(config),
        **mixture(config),
        "window": config.get("sliding_window") if config.get("use_sliding_window") else None,
        "qk_norm": True,
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {
        **told_shape(model),
        **told_mixture(model),
        "attention_bias": False,
        "use_sliding_window": model.window is not None,
        "sliding_window": model.window,
    }


def misfit(model: ModelConfig) -> str:
    """Why a model is no Qwen 3 MoE, or nothing."""
    return odd_mixture(model) or unusual(model, {"qk_norm": True}, free=FREE | {"window"})


QWEN3_MOE = Family("qwen3_moe", "qwen3_moe", "Qwen3MoeForCausalLM", TABLE, settings, config, misfit)
