"""Qwen 1.5 and 2 MoE: narrow experts, and a block beside them that a gate weighs."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.convert.families.llama import (
    ATTENTION,
    ATTENTION_MATRICES,
    ENDS,
    MLP,
    NORMS,
    THEIRS,
    odd_parts,
    three,
)
from megatron_jobs.convert.families.sparse import (
    BLOCKS,
    block,
    has_shared,
    shape,
    told_shape,
)
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import SIZES, only, unusual
from megatron_jobs.convert.forms import QKV

TABLE = (
    *ENDS,
    *NORMS,
    *ATTENTION_MATRICES,
    Row(ATTENTION + "linear_qkv.bias", three("bias"), QKV, lambda model, _: model.qkv_bias),
    *BLOCKS,
    *block("shared_experts.", "mlp.shared_expert.", when=has_shared),
    Row(
        MLP + "shared_experts.gate_weight",
        (THEIRS + "mlp.shared_expert_gate.weight",),
        when=has_shared,
    ),
)
FREE = SIZES | {"experts", "dense_layers", "rope_scaling", "activation"}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, use_sliding_window=False)
    return {
        **shape(config),
        **mixture(config),
        "qkv_bias": config.get("qkv_bias", True),
        "shared_ffn": config["shared_expert_intermediate_size"],
        "shared_gate": True,
    }


def mixture(config: Mapping[str, Any]) -> dict[str, Any]:
    """What Qwen 2 and 3 say alike of experts."""
    every = config.get("decoder_sparse_step", 1)
    named = config.get("mlp_only_layers") or ()
    layers = range(config["num_hidden_layers"])
    return {
        "experts": config["num_experts"]
        if "num_experts" in config
        else config["num_local_experts"],
        "expert_ffn": config["moe_intermediate_size"],
        "dense_layers": tuple(n for n in layers if n in named or (n + 1) % every),
        "router": RouterConfig(normalize=bool(config.get("norm_topk_prob", False))),
    }


def told_mixture(model: ModelConfig) -> dict[str, Any]:
    """The way back from `mixture`."""
    return {
        "num_experts": model.experts,
        "moe_intermediate_size": model.expert_size(),
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(model.dense_layers),
        "norm_topk_prob": model.router.normalize,
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {
        **told_shape(model),
        **told_mixture(model),
        "qkv_bias": model.qkv_bias,
        "use_sliding_window": False,
        "shared_expert_intermediate_size": model.shared_ffn,
    }


def odd_mixture(model: ModelConfig) -> str:
    """Why experts are none of Qwen's, or nothing."""
    if not model.experts:
        return "experts 0"
    router = unusual(model.router, free=frozenset({"normalize", "fp32"}))
    return f"router.{router}" if router else odd_parts(model)


def misfit(model: ModelConfig) -> str:
    """Why a model is no Qwen MoE of that age, or nothing."""
    if not model.shared_ffn:
        return "shared_ffn 0"
    fixed = {"shared_gate": True}
    return odd_mixture(model) or unusual(model, fixed, free=FREE | {"qkv_bias", "shared_ffn"})


QWEN2_MOE = Family("qwen2_moe", "qwen2_moe", "Qwen2MoeForCausalLM", TABLE, settings, config, misfit)
