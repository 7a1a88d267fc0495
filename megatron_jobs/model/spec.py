"""Our own layer spec: which module fills each place of megatron-core's transformer layer.

megatron-core's plain spec knows neither sequence parallelism (its norms) nor context parallelism
(its attention); the other needs Transformer Engine. Ours needs torch alone.
Its checkpoint keys are those of Transformer Engine's spec.
"""

from functools import partial
from typing import Any

from megatron.core.tensor_parallel.layers import (
    ColumnParallelLinear,
    RowParallelLinear,
)
from megatron.core.transformer.attention import (
    SelfAttention,
    SelfAttentionSubmodules,
)
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
)
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
)

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.core_names import norm_names
from megatron_jobs.model.attention import CausalAttention
from megatron_jobs.model.experts import experts_spec
from megatron_jobs.model.feed_forward import Activation, FeedForward
from megatron_jobs.model.latent import latent_spec
from megatron_jobs.model.layer import Layer, drop_then_add
from megatron_jobs.model.norm import HeadsNorm, Norm


def block_spec(model: ModelConfig, layers: range) -> TransformerBlockSubmodules:
    """Layers, by their numbers in the whole model from 0, and the norm after the last one.

    Layers that end in a norm need none after them.
    """
    last = None if model.norm_place == "residual" else Norm
    kinds = {sparse: layer_spec(model, sparse=sparse) for sparse in (False, True)}
    specs = [kinds[model.has_experts(layer)] for layer in layers]
    return TransformerBlockSubmodules(layer_specs=specs, layer_norm=last)


def layer_spec(model: ModelConfig, *, sparse: bool = False) -> ModuleSpec:
    """One layer: attention, feed-forward block or experts (`sparse`), and norms about them."""
    first = Norm if model.norm_place in ("before", "both") else IdentityOp
    submodules = TransformerLayerSubmodules(
        input_layernorm=first,
        self_attention=attention_spec(model),
        self_attn_bda=drop_then_add,
        pre_mlp_layernorm=first,
        mlp=feed_forward(model, sparse=sparse),
        mlp_bda=drop_then_add,
        sharded_state_dict_keys_map=norm_names(model, experts=sparse),
    )
    if model.norm_place == "before" and not model.parallel_residual:
        return ModuleSpec(module=TransformerLayer, submodules=submodules)
    streams = {"place": model.norm_place, "parallel": model.parallel_residual}
    return ModuleSpec(module=Layer, params=streams, submodules=submodules)


def attention_spec(model: ModelConfig) -> ModuleSpec:
    """Self-attention whose core is ours."""
    if model.latent is not None:
        return latent_spec(model, model.latent)
    q_norm, k_norm = head_norms(model)
    submodules = SelfAttentionSubmodules(
        linear_qkv=ColumnParallelLinear,
        core_attention=partial(CausalAttention, model=model),
        linear_proj=RowParallelLinear,
        q_layernorm=q_norm,
        k_layernorm=k_norm,
    )
    causal = {"attn_mask_type": AttnMaskType.causal}
    return ModuleSpec(module=SelfAttention, params=causal, submodules=submodules)


def head_norms(model: ModelConfig) -> tuple[Any, Any]:
    """What norms queries and keys, or None."""
    if model.qk_norm_all:
        return partial(HeadsNorm, heads=model.heads), partial(HeadsNorm, heads=model.groups())
    return (Norm, Norm) if model.qk_norm else (None, None)


def feed_forward(model: ModelConfig, *, sparse: bool) -> Any:
    """What builds the feed-forward block: one MLP, or a router and its experts."""
    submodules = MLPSubmodules(
        linear_fc1=ColumnParallelLinear,
        linear_fc2=RowParallelLinear,
        activation_func=partial(Activation, model.activation),
    )
    if sparse:
        return experts_spec(model, submodules)
    return partial(FeedForward.as_mlp_submodule, submodules=submodules)
