"""T5 of version 1.0 (ReLU, tied output layer) and 1.1 (gated GELU, its own): encoder and decoder.

One embedding is read by both; blocks of a stack share the numbers of distances, which are kept in
its first.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families.llama import has_own_output
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import SIZES, unusual
from megatron_jobs.convert.forms import QKV, VOCABULARY, Form, Order
from megatron_jobs.errors import UserError

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "geglu_tanh": "gated-gelu"}
"""Our activation -> their feed_forward_proj."""
FIXED = {"kind": "encoder_decoder", "position": "relative", "attention_scale": 1.0}
"""Settings that every T5 has."""
RELATIVE = "relative_attention_bias.weight"
SEQ_LEN = 512
"""Tokens, where config.json does not say: those of the first training."""


def headwise(model: ModelConfig) -> Order:
    """k [N D], v [N D] -> [N 2 D], each head's key and its value."""
    keys = np.arange(model.heads * model.head_size()).reshape(model.heads, -1)
    return np.concatenate([keys, keys + keys.size], axis=1).reshape(-1)


KEYS_VALUES = Form(headwise)
"""Separate k and v of as many heads."""


def is_gated(model: ModelConfig, layer: int) -> bool:
    """Whether the feed-forward block has a gate."""
    return model.is_gated()


def is_plain(model: ModelConfig, layer: int) -> bool:
    """Whether it has none."""
    return not model.is_gated()


def _weights(place: str, names: str) -> tuple[str, ...]:
    return tuple(f"{place}.{name}.weight" for name in names)


def _stack(name: str, count: str, *, last: int) -> tuple[Row, ...]:
    """Rows that encoder and decoder both have; `last` is the number of their feed-forward part."""
    ours, theirs = f"{name}.layers.{{layer}}.", f"{name}.block.{{layer}}.layer."
    attention, dense = f"{theirs}0.SelfAttention", f"{theirs}{last}.DenseReluDense."
    first = f"{name}.block.0.layer.0.SelfAttention.{RELATIVE}"
    fc1 = ours + "mlp.linear_fc1.weight"
    pair = (dense + "wi_0.weight", dense + "wi_1.weight")
    rows = (
        Row(f"{name}_relative_pos_emb.{RELATIVE}", (first,)),
        Row(ours + "input_layernorm.weight", (theirs + "0.layer_norm.weight",)),
        Row(ours + "self_attention.linear_qkv.weight", _weights(attention, "qkv"), QKV),
        Row(ours + "self_attention.linear_proj.weight", _weights(attention, "o")),
        Row(ours + "pre_mlp_layernorm.weight", (f"{theirs}{last}.layer_norm.weight",)),
        Row(fc1, pair, when=is_gated),
        Row(fc1, (dense + "wi.weight",), when=is_plain),
        Row(ours + "mlp.linear_fc2.weight", (dense + "wo.weight",)),
        Row(f"{name}.final_layernorm.weight", (f"{name}.final_layer_norm.weight",)),
    )
    return tuple(
        Row(row.ours, row.theirs, row.form, row.when, stack=count) if "{layer}" in row.ours else row
        for row in rows
    )


CROSS, THEIR_CROSS = "decoder.layers.{layer}.cross_attention.", "decoder.block.{layer}.layer.1."
TABLE = (
    Row(
        "embedding.word_embeddings.weight",
        ("shared.weight",),
        VOCABULARY,
        copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),
    ),
    *_stack("encoder", "encoder_layers", last=1),
    *_stack("decoder", "layers", last=2),
    Row(
        "decoder.layers.{layer}.pre_cross_attn_layernorm.weight",
        (THEIR_CROSS + "layer_norm.weight",),
    ),
    Row(CROSS + "linear_q.weight", _weights(THEIR_CROSS + "EncDecAttention", "q")),
    Row(CROSS + "linear_kv.weight", _weights(THEIR_CROSS + "EncDecAttention", "kv"), KEYS_VALUES),
    Row(CROSS + "linear_proj.weight", _weights(THEIR_CROSS + "EncDecAttention", "o")),
    Row("output_layer.weight", ("lm_head.weight",), VOCABULARY, has_own_output),
)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    kind = config.get("feed_forward_proj", "relu")
    names = {theirs: ours for ours, theirs in ACTIVATIONS.items()}
    if kind not in names:
        raise UserError(f"config.json: feed_forward_proj {kind!r}: {', '.join(names)} only")
    scaled = is_scaled(config)
    return {
        **FIXED,
        "layers": config.get("num_decoder_layers") or config["num_layers"],
        "encoder_layers": config["num_layers"],
        "hidden": config["d_model"],
        "heads": config["num_heads"],
        "head_dim": config["d_kv"],
        "ffn": config["d_ff"],
        "vocab_size": config["vocab_size"],
        "seq_len": config.get("n_positions") or SEQ_LEN,
        "relative_buckets": config.get("relative_attention_num_buckets", 32),
        "relative_distance": config.get("relative_attention_max_distance", 128),
        "norm_eps": config.get("layer_norm_epsilon", 1e-6),
        "activation": names[kind],
        "dropout": config.get("dropout_rate", 0.1),
        "attention_dropout": config.get("dropout_rate", 0.1),
        "logit_scale": config["d_model"] ** -0.5 if scaled else None,
        "tied": config.get("tie_word_embeddings", True),
    }


def is_scaled(config: Mapping[str, Any]) -> bool:
    """Whether states are scaled before the output layer, as where it is the embedding.

    transformers 5 writes tie_word_embeddings: true for every T5, and this beside it.
    """
    told = config.get("scale_decoder_outputs")
    return bool(config.get("tie_word_embeddings", True) if told is None else told)


def told_by_names(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Whether the output layer is the embedding: a file may hold both though they are one.

    Raises: UserError for an encoder alone.
    """
    if not any(name.startswith("decoder.block.") for name in names):
        raise UserError("config.json: a t5 with no decoder: T5ForConditionalGeneration only")
    if config.get("tie_word_embeddings", True) and is_scaled(config):
        return {"tied": True}
    return {"tied": "lm_head.weight" not in names}


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {
        "num_layers": model.encoder_layers,
        "num_decoder_layers": model.layers,
        "d_model": model.hidden,
        "num_heads": model.heads,
        "d_kv": model.head_size(),
        "d_ff": model.ffn_size(),
        "vocab_size": model.vocab_size,
        "n_positions": model.seq_len,
        "relative_attention_num_buckets": model.relative_buckets,
        "relative_attention_max_distance": model.relative_distance,
        "layer_norm_epsilon": model.norm_eps,
        "dropout_rate": model.dropout,
        "feed_forward_proj": ACTIVATIONS[model.activation],
        "is_encoder_decoder": True,
        "tie_word_embeddings": model.tied,
        "scale_decoder_outputs": model.logit_scale is not None,
    }


def misfit(model: ModelConfig) -> str:
    """Why a model is no T5, or nothing."""
    own = {"encoder_layers", "activation", "logit_scale"}
    if wrong := unusual(model, FIXED, free=SIZES | own):
        return wrong
    if model.logit_scale not in (None, model.hidden**-0.5):
        return f"logit_scale {model.logit_scale}"
    return "" if model.activation in ACTIVATIONS else f"activation {model.activation}"


T5 = Family(
    "t5",
    "t5",
    "T5ForConditionalGeneration",
    TABLE,
    settings,
    config,
    misfit,
    ignored=(rf"decoder\.block\.0\.layer\.1\.EncDecAttention\.{RELATIVE}",),
    prefix="",
    told_by_names=told_by_names,
)
