"""DeepSeek-V2 and V2-Lite: latent attention, experts after the first layers (arXiv:2405.04434)."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.convert.families.llama import ATTENTION, ENDS, NORMS, THEIRS, odd_parts
from megatron_jobs.convert.families.sparse import (
    BLOCKS,
    block,
    has_shared,
    shape,
    told_shape,
)
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import SIZES, only, unusual
from megatron_jobs.errors import UserError

LATENT = {
    "linear_kv_down_proj": "kv_a_proj_with_mqa",
    "kv_layernorm": "kv_a_layernorm",
    "linear_kv_up_proj": "kv_b_proj",
}
QUERIES = {
    "linear_q_down_proj": "q_a_proj",
    "q_layernorm": "q_a_layernorm",
    "linear_q_up_proj": "q_b_proj",
}
"""Ours -> theirs, of queries that are squeezed."""
NORM_EPS = 1e-6
"""Of the norms of squeezed vectors, whatever rms_norm_eps says; transformers has it so."""
NEXT_TOKENS = r"model\.layers\.{layers}\..+"
"""Layers beyond the last guess tokens further ahead; neither we nor transformers use them."""


def squeezes_queries(model: ModelConfig, layer: int) -> bool:
    """Whether queries go through a narrow vector too (V2-Lite's do not)."""
    return model.latent is not None and model.latent.q_rank is not None


def keeps_queries(model: ModelConfig, layer: int) -> bool:
    """Whether they do not."""
    return not squeezes_queries(model, layer)


def _weight(ours: str, theirs: str, **when: Any) -> Row:
    return Row(f"{ATTENTION}{ours}.weight", (f"{THEIRS}self_attn.{theirs}.weight",), **when)


TABLE = (
    *ENDS,
    *NORMS,
    _weight("linear_proj", "o_proj"),
    *(_weight(ours, theirs) for ours, theirs in LATENT.items()),
    *(_weight(ours, theirs, when=squeezes_queries) for ours, theirs in QUERIES.items()),
    _weight("linear_q_proj", "q_proj", when=keeps_queries),
    *BLOCKS,
    *block("shared_experts.", "mlp.shared_experts.", when=has_shared),
)
FREE = SIZES - {"kv_heads", "head_dim"}
FREE |= {"rope_scaling", "latent", "experts", "dense_layers", "shared_ffn", "activation"}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, scoring_func="softmax", norm_topk_prob=False)
    method = config.get("topk_method", "greedy")
    if method not in ("greedy", "group_limited_greedy"):
        rule = "greedy or group_limited_greedy only"
        raise UserError(f"config.json: topk_method {method!r}: {rule}")
    limited = method == "group_limited_greedy"
    router = RouterConfig(
        normalize=False,
        scale=config.get("routed_scaling_factor", 1.0),
        groups=config["n_group"] if limited else 1,
        groups_per_token=config["topk_group"] if limited else 1,
        group_score="max",
        fp32=True,
    )
    return latent_shape(config) | {"router": router}


def latent_shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """What V2 and V3 say alike."""
    only(config, attention_bias=False, mlp_bias=False, moe_layer_freq=1)
    width = config["moe_intermediate_size"]
    latent = LatentAttention(
        q_rank=config.get("q_lora_rank"),
        kv_rank=config["kv_lora_rank"],
        nope_dim=config["qk_nope_head_dim"],
        rope_dim=config["qk_rope_head_dim"],
        value_dim=config["v_head_dim"],
        norm_eps=NORM_EPS,
    )
    return {
        **shape(config),
        "kv_heads": None,
        "head_dim": None,
        "rope_interleaved": True,
        "latent": latent,
        "experts": config["n_routed_experts"],
        "expert_ffn": width,
        "shared_ffn": width * (config.get("n_shared_experts") or 0),
        "dense_layers": tuple(range(config.get("first_k_dense_replace") or 0)),
    }


def told_latent_shape(model: ModelConfig) -> dict[str, Any]:
    """The way back from `latent_shape`."""
    latent, rules = model.latent, model.router
    assert latent is not None, "no latent attention"
    told = told_shape(model)
    del told["head_dim"]
    return {
        **told,
        "q_lora_rank": latent.q_rank,
        "kv_lora_rank": latent.kv_rank,
        "qk_nope_head_dim": latent.nope_dim,
        "qk_rope_head_dim": latent.rope_dim,
        "v_head_dim": latent.value_dim,
        "n_routed_experts": model.experts,
        "n_shared_experts": model.shared_ffn // model.expert_size(),
        "moe_intermediate_size": model.expert_size(),
        "first_k_dense_replace": len(model.dense_layers),
        "routed_scaling_factor": rules.scale,
        "n_group": rules.groups,
        "topk_group": rules.groups_per_token,
        "norm_topk_prob": rules.normalize,
        "moe_layer_freq": 1,
        "attention_bias": False,
        "num_nextn_predict_layers": 0,
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    limited = model.router.groups > 1
    own = {"topk_method": "group_limited_greedy" if limited else "greedy"}
    return told_latent_shape(model) | own | {"scoring_func": "softmax"}


def odd_latent(model: ModelConfig, rules: Mapping[str, object], free: frozenset[str]) -> str:
    """Why a model is none of DeepSeek's, or nothing; `rules` and `free` are of its router."""
    if not model.experts or model.latent is None:
        return f"experts {model.experts}, latent {model.latent}"
    if model.latent.norm_eps != NORM_EPS:
        return f"latent.norm_eps {model.latent.norm_eps}"
    if model.dense_layers != tuple(range(len(model.dense_layers))):
        return f"dense_layers {model.dense_layers}, which are not the first"
    if model.shared_ffn == 0 or model.shared_ffn % model.expert_size():
        return f"shared_ffn {model.shared_ffn}, no multiple of {model.expert_size()}"
    router = unusual(model.router, rules, free=free)
    if router:
        return f"router.{router}"
    fixed = {"rope_interleaved": True, "kv_heads": model.kv_heads}
    return unusual(model, fixed, free=FREE) or odd_parts(model)


def misfit(model: ModelConfig) -> str:
    """Why a model is no DeepSeek-V2, or nothing."""
    rules = {"normalize": False, "fp32": True, "group_score": "max"}
    free = frozenset({"scale", "groups", "groups_per_token"})
    return odd_latent(model, rules, free)


DEEPSEEK_V2 = Family(
    "deepseek_v2", "deepseek_v2", "DeepseekV2ForCausalLM", TABLE, settings, config, misfit,
    ignored=(NEXT_TOKENS,),
)  # fmt: skip
