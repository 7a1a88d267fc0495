"""DeepSeek-V3 and R1: V2 with sigmoid scores and a bias that keeps experts busy (arXiv:2412.19437).

Published checkpoints hold fp8 weights, which `convert.fp8` reads, and a layer beyond the last.
"""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.convert.families import deepseek_v2
from megatron_jobs.convert.families.deepseek_v2 import (
    NEXT_TOKENS,
    latent_shape,
    odd_latent,
    told_latent_shape,
)
from megatron_jobs.convert.families.llama import MLP, THEIRS
from megatron_jobs.convert.families.sparse import is_sparse
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import only

TABLE = (
    *deepseek_v2.TABLE,
    Row(
        MLP + "router.expert_bias",
        (THEIRS + "mlp.gate.e_score_correction_bias",),
        when=is_sparse,
    ),
)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, scoring_func="sigmoid", topk_method="noaux_tc", rope_interleave=True)
    router = RouterConfig(
        score="sigmoid",
        normalize=config.get("norm_topk_prob", True),
        scale=config.get("routed_scaling_factor", 2.5),
        groups=config.get("n_group") or 1,
        groups_per_token=config.get("topk_group") or 1,
        group_score="top2",
        bias=True,
        fp32=True,
    )
    return latent_shape(config) | {"router": router}


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    own = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "rope_interleave": True}
    return told_latent_shape(model) | own


def misfit(model: ModelConfig) -> str:
    """Why a model is no DeepSeek-V3, or nothing."""
    rules = {"score": "sigmoid", "bias": True, "fp32": True}
    free = frozenset({"normalize", "scale", "groups", "groups_per_token"})
    return odd_latent(model, rules, free)


DEEPSEEK_V3 = Family(
    "deepseek_v3", "deepseek_v3", "DeepseekV3ForCausalLM", TABLE, settings, config, misfit,
    ignored=(NEXT_TOKENS,),
)  # fmt: skip
