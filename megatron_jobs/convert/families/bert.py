"""BERT: an encoder with learned positions and segments, LayerNorm after each sum, GELU, biases.

Which heads a model has stands in its settings, and on the way in that is told by the tensors there
are: files of Google's say BertForMaskedLM and hold the heads of BertForPreTraining.
"""

from collections.abc import Collection, Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.family import Family, Row, When
from megatron_jobs.convert.fit import SIZES, only, unusual
from megatron_jobs.convert.forms import PLAIN, QKV, VOCABULARY, Form
from megatron_jobs.errors import UserError

PREFIX = "bert."
"""Before the names of the encoder, where there is a head."""
OURS = "encoder.layers.{layer}."
THEIRS = "encoder.layer.{layer}."
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
"""Our activation -> their name of it."""
SYNONYMS = {"gelu_pytorch_tanh": "gelu_tanh"}
FIXED: dict[str, Any] = {
    "kind": "encoder",
    "position": "learned",
    "norm": "layernorm",
    "norm_place": "residual",
    "bias": True,
    "tied": True,
}
"""Settings that every BERT has."""
HEADS = frozenset({"token_head", "sentence_head", "pooler"})
TOKEN_BIAS, SENTENCE = "cls.predictions.bias", "cls.seq_relationship."
OLD = {".gamma": ".weight", ".beta": ".bias"}
"""Ends of names, as TensorFlow called a LayerNorm's."""


def has_heads(model: ModelConfig) -> bool:
    """Whether there is more than `BertModel`."""
    return model.token_head or model.sentence_head


def _with(*, heads: bool, setting: str = "") -> When:
    """When a model has heads, or none; and a setting is true."""

    def when(model: ModelConfig, layer: int) -> bool:
        return has_heads(model) == heads and bool(not setting or getattr(model, setting))

    return when


def _pairs(ours: str, theirs: str) -> tuple[tuple[str, tuple[str, ...], Form], ...]:
    """Weight and bias of the same module."""
    return tuple((f"{ours}.{kind}", (f"{theirs}.{kind}",), PLAIN) for kind in ("weight", "bias"))


def _three(kind: str) -> tuple[str, ...]:
    return tuple(f"{THEIRS}attention.self.{name}.{kind}" for name in ("query", "key", "value"))


WORDS = "embeddings.word_embeddings.weight"
ENCODER: tuple[tuple[str, tuple[str, ...], Form], ...] = (
    (
        "embedding.position_embeddings.weight",
        ("embeddings.position_embeddings.weight",),
        PLAIN,
    ),
    *_pairs("embedding.layer_norm", "embeddings.LayerNorm"),
    (OURS + "self_attention.linear_qkv.weight", _three("weight"), QKV),
    (OURS + "self_attention.linear_qkv.bias", _three("bias"), QKV),
    *_pairs(OURS + "self_attention.linear_proj", THEIRS + "attention.output.dense"),
    *_pairs(OURS + "post_self_attn_layernorm", THEIRS + "attention.output.LayerNorm"),
    *_pairs(OURS + "mlp.linear_fc1", THEIRS + "intermediate.dense"),
    *_pairs(OURS + "mlp.linear_fc2", THEIRS + "output.dense"),
    *_pairs(OURS + "post_mlp_layernorm", THEIRS + "output.LayerNorm"),
)
"""(ours, theirs without prefix, form)."""
TYPES = ("embedding.tokentype_embeddings.weight", "embeddings.token_type_embeddings.weight")


def _encoder(*, heads: bool) -> tuple[Row, ...]:
    """Rows of the encoder, its names with a prefix where heads stand beside it."""
    before, own = PREFIX if heads else "", _with(heads=heads)
    copies = ("cls.predictions.decoder.weight",) if heads else ()
    types, pooler = _with(heads=heads, setting="token_types"), _with(heads=heads, setting="pooler")
    words = "embedding.word_embeddings.weight"
    return (
        Row(words, (before + WORDS,), VOCABULARY, own, copies),
        Row(TYPES[0], (before + TYPES[1],), when=types),
        *(Row(o, tuple(before + name for name in t), form, own) for o, t, form in ENCODER),
        *(
            Row(o, (before + t[0],), form, pooler)
            for o, t, form in _pairs("pooler.dense", "pooler.dense")
        ),
    )


def _head(setting: str, ours: str, theirs: str) -> tuple[Row, ...]:
    when = _with(heads=True, setting=setting)
    return tuple(Row(o, t, form, when) for o, t, form in _pairs(ours, theirs))


TABLE = (
    *_encoder(heads=True),
    *_encoder(heads=False),
    *_head("token_head", "lm_head.dense", "cls.predictions.transform.dense"),
    *_head("token_head", "lm_head.layer_norm", "cls.predictions.transform.LayerNorm"),
    Row(
        "output_layer.bias",
        (TOKEN_BIAS,),
        VOCABULARY,
        _with(heads=True, setting="token_head"),
        copies=("cls.predictions.decoder.bias",),
    ),
    *_head("sentence_head", "binary_head", SENTENCE.removesuffix(".")),
)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json; the heads are those of its architecture."""
    activation = config.get("hidden_act", "gelu")
    names = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | SYNONYMS
    if activation not in names:
        raise UserError(f"config.json: hidden_act {activation!r}: {', '.join(names)} only")
    only(
        config,
        position_embedding_type="absolute",
        is_decoder=False,
        add_cross_attention=False,
        tie_word_embeddings=True,
    )
    (architecture, *_) = config.get("architectures") or [""]
    masked = architecture in ("BertForMaskedLM", "BertForPreTraining")
    pair = architecture in ("BertForNextSentencePrediction", "BertForPreTraining")
    return {
        **FIXED,
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "ffn": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
        "seq_len": config["max_position_embeddings"],
        "token_types": config.get("type_vocab_size", 2),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "activation": names[activation],
        "dropout": config.get("hidden_dropout_prob", 0.1),
        "attention_dropout": config.get("attention_probs_dropout_prob", 0.1),
        "token_head": masked,
        "output_bias": masked,
        "sentence_head": pair,
        "pooler": architecture != "BertForMaskedLM",
    }


def told_by_names(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Which heads there are tensors of."""
    masked = TOKEN_BIAS in names or "cls.predictions.decoder.bias" in names
    return {
        "token_head": masked,
        "output_bias": masked,
        "sentence_head": any(name.startswith(SENTENCE) for name in names),
        "pooler": any(name.removeprefix(PREFIX).startswith("pooler.") for name in names),
    }


def renamed(name: str, model: ModelConfig) -> str:
    """Old ends of names as they are now; the prefix where the table has one."""
    for old, new in OLD.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    if name.startswith("cls."):
        return name
    bare = name.removeprefix(PREFIX)
    return PREFIX + bare if has_heads(model) else bare


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings, with the architecture that has the model's heads."""
    return {
        "architectures": [architecture(model)],
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "intermediate_size": model.ffn_size(),
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.seq_len,
        "type_vocab_size": model.token_types,
        "layer_norm_eps": model.norm_eps,
        "hidden_act": ACTIVATIONS[model.activation],
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": model.attention_dropout,
        "tie_word_embeddings": True,
    }


def architecture(model: ModelConfig) -> str:
    """The class of transformers that has the model's heads."""
    if model.token_head:
        return "BertForPreTraining" if model.sentence_head else "BertForMaskedLM"
    return "BertForNextSentencePrediction" if model.sentence_head else "BertModel"


def misfit(model: ModelConfig) -> str:
    """Why a model is no BERT, or nothing."""
    fixed = FIXED | {"output_bias": model.token_head}
    if wrong := unusual(model, fixed, free=SIZES | HEADS | {"activation", "token_types"}):
        return wrong
    if model.head_size() * model.heads != model.hidden:
        return f"head_dim {model.head_dim}"
    return "" if model.activation in ACTIVATIONS else f"activation {model.activation}"


BERT = Family(
    "bert",
    "bert",
    "BertForPreTraining",
    TABLE,
    settings,
    config,
    misfit,
    ignored=(r"(?:bert\.)?embeddings\.(?:position_ids|token_type_ids)",),
    told_by_names=told_by_names,
    renamed=renamed,
)
