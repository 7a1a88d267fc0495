"""Every kind of tensor of our models: its shape, and how tensor ranks cut it.

Names are those of megatron-core's modules with the layer's number in the whole model, and shapes
those of the whole tensor: V vocabulary with padding, H hidden, S positions, D columns of a head.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.matrix import Converted, Matrix

Cut = Literal["none", "rows", "columns", "halves"]
"""Of a tensor over tensor ranks. halves: gate and up are cut by rows, each for itself."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Leaf:
    """A kind of tensor."""

    shape: Callable[[ModelConfig], Shape]
    cut: Cut = "none"


def qkv_rows(model: ModelConfig) -> int:
    """Rows of the fused projection."""
    return (model.heads + 2 * model.groups()) * model.head_size()


def inner_rows(model: ModelConfig) -> int:
    """Rows of the first matrix of a dense block."""
    return model.ffn_size() * (2 if model.is_gated() else 1)


def _hidden(model: ModelConfig) -> Shape:
    return (model.hidden,)


def _normed_queries(model: ModelConfig) -> Shape:
    if model.latent is not None:
        return (latent_of(model).q_rank or 0,)
    return (model.head_size() * (model.heads if model.qk_norm_all else 1),)


def _normed_keys(model: ModelConfig) -> Shape:
    return (model.head_size() * (model.groups() if model.qk_norm_all else 1),)


def latent_of(model: ModelConfig) -> LatentAttention:
    """The sizes of latent attention; the model must have it."""
    assert model.latent is not None, "no latent attention"
    return model.latent


def _query_rows(model: ModelConfig) -> int:
    return model.heads * model.head_size()


def _gated(width: int, model: ModelConfig) -> int:
    """Rows of the first matrix of a block of an inner width."""
    return width * (2 if model.is_gated() else 1)


_LAYER = r"(?:decoder|encoder)\.layers\.\d+\."
LATENT = r"decoder\.layers\.\d+\.self_attention\."
SPARSE = r"decoder\.layers\.\d+\.mlp\."
EXPERT = SPARSE + r"experts\.local_experts\.\d+\."
LEAVES: dict[str, Leaf] = {
    r"embedding\.word_embeddings\.weight": Leaf(lambda m: (m.padded_vocab(), m.hidden), "rows"),
    r"embedding\.position_embeddings\.weight": Leaf(lambda m: (m.seq_len, m.hidden)),
    r"output_layer\.weight": Leaf(lambda m: (m.padded_vocab(), m.hidden), "rows"),
    r"output_layer\.bias": Leaf(lambda m: (m.padded_vocab(),), "rows"),
    r"(?:decoder|encoder)\.final_layernorm\.(?:weight|bias)": Leaf(_hidden),
    _LAYER + r"(?:input|pre_mlp|post_self_attn|post_mlp)_layernorm\.(?:weight|bias)": Leaf(_hidden),
    _LAYER + r"self_attention\.linear_qkv\.weight": Leaf(lambda m: (qkv_rows(m), m.hidden), "rows"),
    _LAYER + r"self_attention\.linear_qkv\.bias": Leaf(lambda m: (qkv_rows(m),), "rows"),
    _LAYER + r"self_attention\.q_layernorm\.(?:weight|bias)": Leaf(_normed_queries),
    _LAYER + r"self_attention\.k_layernorm\.(?:weight|bias)": Leaf(_normed_keys),
    _LAYER + r"self_attention\.linear_proj\.weight": Leaf(
        lambda m: (m.hidden, m.heads * m.value_size()), "columns"
    ),
    _LAYER + r"self_attention\.linear_proj\.bias": Leaf(_hidden),
    _LAYER + r"mlp\.linear_fc1\.weight": Leaf(lambda m: (inner_rows(m), m.hidden), "halves"),
    _LAYER + r"mlp\.linear_fc1\.bias": Leaf(lambda m: (inner_rows(m),), "halves"),
    _LAYER + r"mlp\.linear_fc2\.weight": Leaf(lambda m: (m.hidden, m.ffn_size()), "columns"),
    _LAYER + r"mlp\.linear_fc2\.bias": Leaf(_hidden),
    r"embedding\.tokentype_embeddings\.weight": Leaf(lambda m: (m.token_types, m.hidden)),
    r"embedding\.layer_norm\.(?:weight|bias)": Leaf(_hidden),
    r"(?:lm_head|pooler)\.dense\.weight": Leaf(lambda m: (m.hidden, m.hidden)),
    r"(?:lm_head|pooler)\.dense\.bias": Leaf(_hidden),
    r"lm_head\.layer_norm\.(?:weight|bias)": Leaf(_hidden),
    r"binary_head\.weight": Leaf(lambda m: (2, m.hidden)),
    r"binary_head\.bias": Leaf(lambda m: (2,)),
    r"(?:encoder|decoder)_relative_pos_emb\.relative_attention_bias\.weight": Leaf(
        lambda m: (m.relative_buckets, m.heads)
    ),
    _LAYER + r"pre_cross_attn_layernorm\.weight": Leaf(_hidden),
    _LAYER + r"cross_attention\.linear_q\.weight": Leaf(
        lambda m: (m.heads * m.head_size(), m.hidden), "rows"
    ),
    _LAYER + r"cross_attention\.linear_kv\.weight": Leaf(
        lambda m: (2 * m.heads * m.head_size(), m.hidden), "rows"
    ),
    _LAYER + r"cross_attention\.linear_proj\.weight": Leaf(
        lambda m: (m.hidden, m.heads * m.head_size()), "columns"
    ),
    LATENT + r"linear_q_proj\.weight": Leaf(lambda m: (_query_rows(m), m.hidden), "rows"),
    LATENT + r"linear_q_down_proj\.weight": Leaf(lambda m: (latent_of(m).q_rank or 0, m.hidden)),
    LATENT + r"linear_q_up_proj\.weight": Leaf(
        lambda m: (_query_rows(m), latent_of(m).q_rank or 0), "rows"
    ),
    LATENT + r"linear_kv_down_proj\.weight": Leaf(
        lambda m: (latent_of(m).kv_rank + latent_of(m).rope_dim, m.hidden)
    ),
    LATENT + r"linear_kv_up_proj\.weight": Leaf(
        lambda m: (m.heads * (latent_of(m).nope_dim + m.value_size()), latent_of(m).kv_rank),
        "rows",
    ),
    LATENT + r"kv_layernorm\.weight": Leaf(lambda m: (latent_of(m).kv_rank,)),
    SPARSE + r"router\.weight": Leaf(lambda m: (m.experts, m.hidden)),
    SPARSE + r"router\.(?:bias|expert_bias)": Leaf(lambda m: (m.experts,)),
    SPARSE + r"shared_experts\.linear_fc1\.weight": Leaf(
        lambda m: (_gated(m.shared_ffn, m), m.hidden), "halves"
    ),
    SPARSE + r"shared_experts\.linear_fc2\.weight": Leaf(
        lambda m: (m.hidden, m.shared_ffn), "columns"
    ),
    SPARSE + r"shared_experts\.gate_weight": Leaf(lambda m: (1, m.hidden)),
    EXPERT + r"linear_fc1\.weight": Leaf(
        lambda m: (_gated(m.expert_size(), m), m.hidden), "halves"
    ),
    EXPERT + r"linear_fc1\.bias": Leaf(lambda m: (_gated(m.expert_size(), m),), "halves"),
    EXPERT + r"linear_fc2\.weight": Leaf(lambda m: (m.hidden, m.expert_size()), "columns"),
    EXPERT + r"linear_fc2\.bias": Leaf(_hidden),
}
"""Pattern of whole names -> what it is. `halves` is `rows` where there is no gate."""
NUMBER = re.compile(r"\.\d+\.")


def leaf_of(name: str) -> Leaf:
    """What a tensor is; KeyError with its name when it is of no known kind."""
    leaf = _leaf_of_kind(NUMBER.sub(".0.", name))
    if leaf is None:
        raise KeyError(name)
    return leaf


@lru_cache(maxsize=1024)
def _leaf_of_kind(name: str) -> Leaf | None:
    """Of a name whose numbers are 0: a model has few such, however many layers and experts."""
    return next((leaf for pattern, leaf in LEAVES.items() if re.fullmatch(pattern, name)), None)


def shape_of(name: str, model: ModelConfig) -> Shape:
    """The whole tensor's shape."""
    return leaf_of(name).shape(model)


def in_format(name: str, matrix: Matrix, wanted: np.dtype[np.generic]) -> Matrix:
    """One of our tensors in the number format of its model.

    Training moves the bias of experts by steps that bf16 would lose: it is fp32 in every model.
    """
    dtype = np.dtype(np.float32) if name.endswith("router.expert_bias") else wanted
    return matrix if matrix.dtype == dtype else Converted(matrix, dtype, name)
