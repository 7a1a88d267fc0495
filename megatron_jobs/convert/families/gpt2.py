"""GPT-2: learned positions, LayerNorm, GELU, biases, weights kept [in, out]."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import SIZES, only, unusual
from megatron_jobs.convert.forms import FUSED_QKV, TURNED, TURNED_QKV, VOCABULARY
from megatron_jobs.errors import UserError

OURS, THEIRS = "decoder.layers.{layer}.", "transformer.h.{layer}."
ATTENTION, MLP = OURS + "self_attention.", OURS + "mlp."
GELUS = {"gelu_tanh": "gelu_new", "gelu": "gelu"}
"""Our activation -> their name of it."""


def _norms() -> tuple[Row, ...]:
    places = (
        (OURS + "input_layernorm", THEIRS + "ln_1"),
        (OURS + "pre_mlp_layernorm", THEIRS + "ln_2"),
        ("decoder.final_layernorm", "transformer.ln_f"),
    )
    kinds = ("weight", "bias")
    return tuple(Row(f"{o}.{kind}", (f"{t}.{kind}",)) for o, t in places for kind in kinds)


TABLE = (
    Row(
        "embedding.word_embeddings.weight",
        ("transformer.wte.weight",),
        VOCABULARY,
        copies=("lm_head.weight",),
    ),
    Row("embedding.position_embeddings.weight", ("transformer.wpe.weight",)),
    *_norms(),
    Row(ATTENTION + "linear_qkv.weight", (THEIRS + "attn.c_attn.weight",), TURNED_QKV),
    Row(ATTENTION + "linear_qkv.bias", (THEIRS + "attn.c_attn.bias",), FUSED_QKV),
    Row(ATTENTION + "linear_proj.weight", (THEIRS + "attn.c_proj.weight",), TURNED),
    Row(ATTENTION + "linear_proj.bias", (THEIRS + "attn.c_proj.bias",)),
    Row(MLP + "linear_fc1.weight", (THEIRS + "mlp.c_fc.weight",), TURNED),
    Row(MLP + "linear_fc1.bias", (THEIRS + "mlp.c_fc.bias",)),
    Row(MLP + "linear_fc2.weight", (THEIRS + "mlp.c_proj.weight",), TURNED),
    Row(MLP + "linear_fc2.bias", (THEIRS + "mlp.c_proj.bias",)),
    Row("output_layer.weight", ("lm_head.weight",), VOCABULARY, lambda model, _: not model.tied),
)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(
        config,
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    )
    if config.get("embd_pdrop") != config.get("resid_pdrop"):
        raise UserError("config.json: embd_pdrop is not resid_pdrop: one rate serves for both")
    name = config.get("activation_function", "gelu_new")
    names = {theirs: ours for ours, theirs in GELUS.items()}
    if name not in names:
        raise UserError(f"config.json: activation_function {name!r}: gelu_new or gelu only")
    return {
        "layers": config["n_layer"],
        "hidden": config["n_embd"],
        "heads": config["n_head"],
        "kv_heads": config["n_head"],
        "ffn": config.get("n_inner") or 4 * config["n_embd"],
        "vocab_size": config["vocab_size"],
        "seq_len": config["n_positions"],
        "position": "learned",
        "norm": "layernorm",
        "norm_eps": config["layer_norm_epsilon"],
        "activation": names[name],
        "bias": True,
        "dropout": config.get("resid_pdrop", 0.0),
        "attention_dropout": config.get("attn_pdrop", 0.0),
        "tied": config.get("tie_word_embeddings", True),
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {
        "vocab_size": model.vocab_size,
        "n_layer": model.layers,
        "n_embd": model.hidden,
        "n_head": model.heads,
        "n_inner": model.ffn_size(),
        "n_positions": model.seq_len,
        "activation_function": GELUS[model.activation],
        "layer_norm_epsilon": model.norm_eps,
        "resid_pdrop": model.dropout,
        "embd_pdrop": model.dropout,
        "attn_pdrop": model.attention_dropout,
        "tie_word_embeddings": model.tied,
    }


def misfit(model: ModelConfig) -> str:
    """Why a model is no GPT-2, or nothing."""
    fixed = {"position": "learned", "norm": "layernorm", "bias": True}
    found = unusual(model, fixed, free=SIZES | {"activation"})
    if found:
        return found
    if model.activation not in GELUS:
        return f"activation {model.activation}"
    return "" if model.groups() == model.heads else f"kv_heads {model.kv_heads}"


GPT2 = Family(
    "gpt2",
    "gpt2",
    "GPT2LMHeadModel",
    TABLE,
    settings,
    config,
    misfit,
    prefix="transformer.",
    ignored=(r"transformer\.h\.\d+\.attn\.(?:masked_)?bias",),
)
