"""GPT-NeoX and Pythia: LayerNorm, biases, few turned columns, streams side by side."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.angles import read_angles, told_angles
from megatron_jobs.convert.families.llama import has_own_output
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import SIZES, only, unusual
from megatron_jobs.convert.forms import PLAIN, VOCABULARY
from megatron_jobs.errors import UserError

OURS, THEIRS = "decoder.layers.{layer}.", "gpt_neox.layers.{layer}."
EMBEDDING = "gpt_neox.embed_in.weight"
PAIRS = {
    OURS + "input_layernorm": THEIRS + "input_layernorm",
    OURS + "self_attention.linear_qkv": THEIRS + "attention.query_key_value",
    OURS + "self_attention.linear_proj": THEIRS + "attention.dense",
    OURS + "pre_mlp_layernorm": THEIRS + "post_attention_layernorm",
    OURS + "mlp.linear_fc1": THEIRS + "mlp.dense_h_to_4h",
    OURS + "mlp.linear_fc2": THEIRS + "mlp.dense_4h_to_h",
    "decoder.final_layernorm": "gpt_neox.final_layer_norm",
}
"""Ours -> theirs. Their query_key_value has each head's query, key and value, as ours has of a
group; there, a head is a group."""
TABLE = (
    Row("embedding.word_embeddings.weight", (EMBEDDING,), VOCABULARY, copies=("embed_out.weight",)),
    *(
        Row(f"{ours}.{kind}", (f"{theirs}.{kind}",), PLAIN)
        for ours, theirs in PAIRS.items()
        for kind in ("weight", "bias")
    ),
    Row("output_layer.weight", ("embed_out.weight",), VOCABULARY, has_own_output),
)
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Theirs -> ours."""
FIXED = {"norm": "layernorm", "bias": True}
FREE = SIZES | {"activation", "rope_share", "rope_scaling", "parallel_residual"}
STRETCHES = ("linear", "llama3", "yarn")
"""Kinds of `rope_scaling`."""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, attention_bias=True)
    heads = config["num_attention_heads"]
    own_words = {
        "rope_theta": config.get("rotary_emb_base"),
        "partial_rotary_factor": config.get("rotary_pct", 0.25),
    }
    return {
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "heads": heads,
        "kv_heads": heads,
        "ffn": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "seq_len": config["max_position_embeddings"],
        **read_angles({**config, **own_words}, kinds=STRETCHES, partly=True),
        "norm_eps": config.get("layer_norm_eps", 1e-5),
        "activation": activation(config.get("hidden_act", "gelu")),
        "parallel_residual": config.get("use_parallel_residual", True),
        "tied": config.get("tie_word_embeddings", False),
        **FIXED,
    }


def activation(name: str) -> str:
    """Our name of theirs."""
    if name not in ACTIVATIONS:
        raise UserError(f"config.json: hidden_act {name!r}: one of {', '.join(ACTIVATIONS)} only")
    return ACTIVATIONS[name]


def renamed(name: str, model: ModelConfig) -> str:
    """transformers calls the output layer otherwise while it is loaded."""
    return "embed_out.weight" if name == "lm_head.weight" else name


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings, with the words of newer and of older readers."""
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "intermediate_size": model.ffn_size(),
        "max_position_embeddings": model.seq_len,
        "vocab_size": model.vocab_size,
        **told_angles(model),
        "rotary_emb_base": model.rope_base,
        "rotary_pct": model.rope_share,
        "layer_norm_eps": model.norm_eps,
        "hidden_act": names[model.activation],
        "use_parallel_residual": model.parallel_residual,
        "attention_bias": True,
        "attention_dropout": model.attention_dropout,
        "hidden_dropout": model.dropout,
        "tie_word_embeddings": model.tied,
    }


def misfit(model: ModelConfig) -> str:
    """Why a model is no GPT-NeoX, or nothing."""
    if model.activation not in ACTIVATIONS.values():
        return f"activation {model.activation}"
    if model.rope_scaling and model.rope_scaling.kind not in STRETCHES:
        return f"rope_scaling {model.rope_scaling.kind}"
    if model.groups() != model.heads:
        return f"kv_heads {model.kv_heads}"
    odd_head = model.head_size() * model.heads != model.hidden
    return f"head_dim {model.head_dim}" if odd_head else unusual(model, FIXED, free=FREE)


GPT_NEOX = Family(
    "gpt_neox",
    "gpt_neox",
    "GPTNeoXForCausalLM",
    TABLE,
    settings,
    config,
    misfit,
    ignored=(
        r"gpt_neox\.layers\.\d+\.attention\.(?:masked_)?bias",
        r"gpt_neox\.layers\.\d+\.attention\.rotary_emb\.inv_freq",
    ),
    renamed=renamed,
)
