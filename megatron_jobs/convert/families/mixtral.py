"""Mixtral: a Llama with experts in every layer (arXiv:2401.04088)."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families.llama import (
    ATTENTION_MATRICES,
    ENDS,
    MLP,
    NORMS,
    THEIRS,
    odd_parts,
)
from megatron_jobs.convert.families.sparse import (
    EXPERT,
    block,
    is_sparse,
    shape,
    told_shape,
)
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import SIZES, unusual

SPARSE = "block_sparse_moe."
BASE = 1000000
"""Of the angles where config.json gives none."""
TABLE = (
    *ENDS,
    *NORMS,
    *ATTENTION_MATRICES,
    *block(EXPERT, SPARSE + "experts.{expert}.", ("w1", "w3", "w2"), when=is_sparse),
    Row(MLP + "router.weight", (THEIRS + SPARSE + "gate.weight",)),
)
FREE = SIZES - {"router"} | {"experts", "window", "rope_scaling", "activation"}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    return {
        **shape({"rope_theta": BASE} | dict(config)),
        "window": config.get("sliding_window"),
        "experts": config["num_local_experts"],
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {
        **told_shape(model),
        "intermediate_size": model.expert_size(),
        "sliding_window": model.window,
        "num_local_experts": model.experts,
    }


def misfit(model: ModelConfig) -> str:
    """Why a model is no Mixtral, or nothing."""
    if not model.experts:
        return "experts 0"
    router = unusual(model.router, free=frozenset({"fp32"}))
    if router:
        return f"router.{router}"
    return unusual(model, {"router": model.router}, free=FREE) or odd_parts(model)


MIXTRAL = Family("mixtral", "mixtral", "MixtralForCausalLM", TABLE, settings, config, misfit)
