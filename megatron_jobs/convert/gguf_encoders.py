"""BERT and T5 in GGUF: what their metadata says beside a table of settings.

Source: conversion/bert.py, conversion/t5.py, src/models/bert.cpp, src/models/t5.cpp of llama.cpp.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from megatron_jobs.convert.matrix import Matrix

TYPES = "token_types.weight"
TYPE_COUNT = "tokenizer.ggml.token_type_count"
GATE = "enc.blk.0.ffn_gate.weight"


def bert_config(metadata: Mapping[str, Any], tensors: Mapping[str, Matrix]) -> dict[str, Any]:
    """What config.json says that follows from tensors; ValueError for a BERT that looks back."""
    if metadata.get("bert.attention.causal"):
        raise ValueError("bert.attention.causal: a BERT sees all tokens")
    types = tensors[TYPES].rows if TYPES in tensors else 0
    return {"type_vocab_size": types, "tie_word_embeddings": True, "architectures": ["BertModel"]}


def bert_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """The way back."""
    types = np.uint32(config.get("type_vocab_size", 2))
    return {"bert.attention.causal": np.bool_(False), TYPE_COUNT: types}


def t5_config(tensors: Mapping[str, Matrix], *, tied: bool) -> dict[str, Any]:
    """What config.json says that follows from tensors."""
    return {
        "feed_forward_proj": "gated-gelu" if GATE in tensors else "relu",
        "scale_decoder_outputs": tied,
        "is_encoder_decoder": True,
    }


def t5_metadata(found: Mapping[str, Any]) -> dict[str, Any]:
    """The way back; llama.cpp reads the norms' number under one name, transformers another."""
    epsilon = found["t5.attention.layer_norm_rms_epsilon"]
    return {"t5.attention.layer_norm_epsilon": epsilon}


def t5_remarks(config: Mapping[str, Any], *, own_output: bool) -> list[str]:
    """Where llama.cpp computes otherwise than this model: a sentence each."""
    if own_output:
        return []
    times = math.sqrt(config["d_model"])
    rule = "states before an output layer that is the embedding"
    return [f"llama.cpp does not scale {rule}: its logits are {times:.3g} times as large"]
