"""OLMo 2: norms after attention and block only, and of all heads together."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families.llama import has_own_output
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import only, unusual
from megatron_jobs.convert.forms import QKV, VOCABULARY
from megatron_jobs.errors import UserError

OURS, THEIRS = "decoder.layers.{layer}.", "model.layers.{layer}."
ATTENTION, MLP = OURS + "self_attention.", OURS + "mlp."
THEIR_ATTENTION, THEIR_MLP = THEIRS + "self_attn.", THEIRS + "mlp."
TABLE = (
    Row(
        "embedding.word_embeddings.weight",
        ("model.embed_tokens.weight",),
        VOCABULARY,
        copies=("lm_head.weight",),
    ),
    Row(
        ATTENTION + "linear_qkv.weight",
        tuple(f"{THEIR_ATTENTION}{name}_proj.weight" for name in "qkv"),
        QKV,
    ),
    Row(ATTENTION + "q_layernorm.weight", (THEIR_ATTENTION + "q_norm.weight",)),
    Row(ATTENTION + "k_layernorm.weight", (THEIR_ATTENTION + "k_norm.weight",)),
    Row(ATTENTION + "linear_proj.weight", (THEIR_ATTENTION + "o_proj.weight",)),
    Row(OURS + "post_self_attn_layernorm.weight", (THEIRS + "post_attention_layernorm.weight",)),
    Row(
        MLP + "linear_fc1.weight",
        tuple(f"{THEIR_MLP}{name}_proj.weight" for name in ("gate", "up")),
    ),
    Row(MLP + "linear_fc2.weight", (THEIR_MLP + "down_proj.weight",)),
    Row(OURS + "post_mlp_layernorm.weight", (THEIRS + "post_feedforward_layernorm.weight",)),
    Row("decoder.final_layernorm.weight", ("model.norm.weight",)),
    Row("output_layer.weight", ("lm_head.weight",), VOCABULARY, has_own_output),
)
FIXED = {"norm_place": "after", "qk_norm": True, "qk_norm_all": True}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    only(config, hidden_act="silu", attention_bias=False)
    if config.get("head_dim") and config["head_dim"] * heads != hidden:
        raise UserError(f"config.json: head_dim {config['head_dim']}: heads must fill hidden_size")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    only(rope, rope_type="default", type="default")
    return {
        "layers": config["num_hidden_layers"],
        "hidden": hidden,
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "ffn": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "seq_len": config["max_position_embeddings"],
        "rope_base": int(rope.get("rope_theta") or config.get("rope_theta") or 10000),
        "norm_eps": config.get("rms_norm_eps", 1e-5),
        "tied": config.get("tie_word_embeddings", False),
        **FIXED,
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.groups(),
        "intermediate_size": model.ffn_size(),
        "max_position_embeddings": model.seq_len,
        "vocab_size": model.vocab_size,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(model.rope_base)},
        "rope_theta": float(model.rope_base),
        "rms_norm_eps": model.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": model.attention_dropout,
        "tie_word_embeddings": model.tied,
    }


def misfit(model: ModelConfig) -> str:
    """Why a model is no OLMo 2, or nothing."""
    odd_head = model.head_size() * model.heads != model.hidden
    return f"head_dim {model.head_dim}" if odd_head else unusual(model, FIXED)


OLMO2 = Family("olmo2", "olmo2", "Olmo2ForCausalLM", TABLE, settings, config, misfit)
