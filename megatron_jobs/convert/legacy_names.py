"""Our names of tensors in the files of Megatron-LM's ranks, older and newer, and their old order.

Numbers of layers and experts are those within the rank's own part of the model.
"""

import re

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.core_names import leading_axes, name_of

Order = NDArray[np.int64]
IGNORED = re.compile(r".*(?:_extra_state|inv_freq|word_embeddings_for_head\.weight).*")
"""No weights, or copies of the embedding."""
PREFIX = re.compile(r"(?:(?:model|module)\.)*")
CHANGES = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (r"^language_model\.(?:encoder|transformer)\.", "decoder."),
        (r"^language_model\.", ""),
        (r"^decoder\.final_norm\.", "decoder.final_layernorm."),
        (r"\.input_norm\.", ".input_layernorm."),
        (r"\.post_attention_(?:layer)?norm\.", ".pre_mlp_layernorm."),
        (r"(\.layers\.\d+)\.attention\.", r"\1.self_attention."),
        (r"\.self_attention\.query_key_value\.", ".self_attention.linear_qkv."),
        (r"\.self_attention\.dense\.", ".self_attention.linear_proj."),
        (r"\.dense_h_to_4h\.", ".linear_fc1."),
        (r"\.dense_4h_to_h\.", ".linear_fc2."),
        (r"\.experts\.(linear_fc[12])\.(weight|bias)(\d+)$", r".experts.local_experts.\3.\1.\2"),
    )
)
OLD_QKV = re.compile(r".*\.query_key_value\.(?:weight|bias)")


def local_name(key: str) -> str:
    """Our name of a key of a rank's file, or nothing for what is no weight; ValueError for one of
    no layer."""
    if IGNORED.fullmatch(key):
        return ""
    name = PREFIX.sub("", key, count=1)
    for pattern, word in CHANGES:
        name = pattern.sub(word, name)
    if leading_axes(name):
        raise ValueError("a layer or expert without a number")
    return name_of(name)


def old_order(version: float, heads: int, model: ModelConfig) -> Order | None:
    """Row i of a rank's fused queries, keys and values of today is this row of the old file.

    Versions up to 1 kept all queries, then all keys, then all values of a rank (0), or a row of
    each in turn (1); from 2 on each head's stand together, as megatron-core has them.
    Source: Megatron-LM, megatron/training/checkpointing.py, fix_query_key_value_ordering.

    Args:
        heads: of the rank.
    """
    if version >= 2:
        return None
    rows = np.arange(3 * heads * model.head_size(), dtype=np.int64)
    if version == 0:  # [3, heads, head] -> [heads, 3, head]
        return rows.reshape(3, heads, -1).transpose(1, 0, 2).reshape(-1)
    return rows.reshape(heads, -1, 3).transpose(0, 2, 1).reshape(-1)
