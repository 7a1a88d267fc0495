"""From a `ModelConfig` to this rank's part of the model: a list of megatron-core modules.

They are `GPTModel`s, or `BertModel`s and `T5Model`s of ours.
"""

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.transformer_block import get_num_layers_to_build
from megatron.core.transformer.transformer_config import (
    MLATransformerConfig,
    TransformerConfig,
)
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset
from torch.nn import functional

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.model.bert import BertModel
from megatron_jobs.model.ends import finish_ends
from megatron_jobs.model.experts import expert_settings
from megatron_jobs.model.initialize import initialize
from megatron_jobs.model.latent import latent_settings
from megatron_jobs.model.spec import block_spec
from megatron_jobs.model.t5 import T5Model
from megatron_jobs.parallel.device import engine_device
from megatron_jobs.parallel.products import join_products

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

UNFUSED: dict[str, Any] = {
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "masked_softmax_fusion": False,
    "apply_rope_fusion": False,
    "persist_layer_norm": False,
}
"""Forms that need Transformer Engine, apex or a compiler."""


def build_model(
    model: ModelConfig, mesh: Mesh, precision: Precision = "fp32", *, seed: int | None = 0
) -> list[Any]:
    """This rank's chunks of the model, with initial weights; groups must be open.

    There is one chunk, or `mesh.virtual` of them. Weights depend on `seed` and the model alone:
    every mesh starts from the same ones. Without a seed they are left to be loaded.
    """
    config = core_config(model, mesh, precision)
    stages = list(range(mesh.virtual)) if mesh.virtual > 1 else [None]
    chunks = [build_chunk(model, config, stage) for stage in stages]
    if seed is not None:
        for chunk in chunks:
            initialize(chunk, model, seed=seed)
    return chunks


def build_chunk(model: ModelConfig, config: TransformerConfig, stage: int | None) -> Any:
    """Consecutive layers; the first chunk has the embedding, the last the output layer."""
    if model.kind == "encoder_decoder":
        return T5Model(model, config).to(device=engine_device(), dtype=config.params_dtype)
    where = {"ignore_virtual": False, "vp_stage": stage}
    first = parallel_state.is_pipeline_first_stage(**where)
    last = parallel_state.is_pipeline_last_stage(**where)
    layers = get_num_layers_to_build(config, vp_stage=stage)
    start = get_transformer_layer_offset(config, vp_stage=stage)
    if model.kind == "encoder":
        encoder = BertModel(
            model, config, layers=layers, pre_process=first, post_process=last, vp_stage=stage
        )
        return encoder.to(device=engine_device(), dtype=config.params_dtype)
    chunk = GPTModel(
        config=config,
        transformer_layer_spec=block_spec(model, range(start, start + layers)),
        vocab_size=model.padded_vocab(),
        max_sequence_length=model.seq_len,
        pre_process=first,
        post_process=last,
        share_embeddings_and_output_weights=model.tied,
        # rotary angles are the business of `CausalAttention`
        position_embedding_type="learned_absolute" if model.position == "learned" else "none",
        vp_stage=stage,
    )
    finish_ends(chunk, model)
    return chunk.to(device=engine_device(), dtype=config.params_dtype)


def core_config(model: ModelConfig, mesh: Mesh, precision: Precision) -> TransformerConfig:
    """megatron-core's own configuration, made from ours."""
    settings = shape_settings(model) | mesh_settings(mesh) | expert_settings(model) | UNFUSED
    settings |= {
        "pipeline_model_parallel_layout": pipeline_layout(model, mesh),
        "gradient_accumulation_fusion": join_products(),
        "params_dtype": DTYPES[precision],
        "pipeline_dtype": DTYPES[precision],
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "perform_initialization": False,  # `initialize` does it, equally on every mesh
        "calculate_per_token_loss": True,  # every target counts alike, whatever rank it is on
    }
    if model.latent is None:
        return TransformerConfig(**settings)
    return MLATransformerConfig(**settings, **latent_settings(model))


def pipeline_layout(model: ModelConfig, mesh: Mesh) -> list[list[str]] | None:
    """What each block of layers holds, in megatron-core's words; None where all hold as many."""
    counts = mesh.block_layers(model.layers)
    if len(set(counts)) == 1:
        return None
    layout = [["decoder"] * count for count in counts]
    return [["embedding", *layout[0]], *layout[1:-1], [*layout[-1], "loss"]]


def shape_settings(model: ModelConfig) -> dict[str, Any]:
    """Sizes and kinds of the layers."""
    return {
        "num_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "num_query_groups": model.groups(),
        "kv_channels": model.head_size(),
        "ffn_hidden_size": model.ffn_size(),
        "normalization": "RMSNorm" if model.norm == "rmsnorm" else "LayerNorm",
        "layernorm_epsilon": model.norm_eps,
        "layernorm_zero_centered_gamma": model.norm_offset,
        "gated_linear_unit": model.is_gated(),
        # the place where a module, ours, may do all between the matrices; `activation_func` itself
        # is then never called, but must be one that megatron-core knows
        "use_te_activation_func": True,
        "activation_func": functional.silu if model.is_gated() else functional.gelu,
        "add_bias_linear": model.bias,
        "add_qkv_bias": model.qkv_bias,
        "qk_layernorm": model.qk_norm,
        "hidden_dropout": model.dropout,
        "attention_dropout": model.attention_dropout,
    }


def mesh_settings(mesh: Mesh) -> dict[str, Any]:
    """Degrees of parallelism and how stages talk to each other."""
    settings: dict[str, Any] = {
        "tensor_model_parallel_size": mesh.tensor,
        "pipeline_model_parallel_size": mesh.pipeline,
        "virtual_pipeline_model_parallel_size": mesh.virtual if mesh.virtual > 1 else None,
        "context_parallel_size": mesh.context,
        "expert_model_parallel_size": mesh.expert,
        "expert_tensor_parallel_size": mesh.expert_tensor,
        "sequence_parallel": mesh.sequence_parallel,
        # interleaved stages that batch their messages get wrong gradients over gloo, and nothing
        # says so
        "overlap_p2p_comm": mesh.virtual > 1,
        "batch_p2p_comm": mesh.virtual == 1,
    }
    if mesh.recompute == "attention":
        settings["recompute_granularity"] = "selective"
    if mesh.recompute == "layer":
        settings["recompute_granularity"] = "full"
        settings |= {"recompute_method": "uniform", "recompute_num_layers": 1}
    return settings
