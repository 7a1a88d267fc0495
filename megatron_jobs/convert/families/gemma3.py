"""Gemma 3 without pictures: Gemma 2 with norms of queries and keys, and two kinds of angles.

Of a model that sees pictures (`gemma3`: 4B, 12B and 27B) the language part is taken.
"""

import re
from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.angles import read_angles, told_scaling, whole_base
from megatron_jobs.convert.families import gemma2
from megatron_jobs.convert.families.gemma2 import FULL, SLIDING, in_turn
from megatron_jobs.convert.families.llama import ATTENTION, THEIRS
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import only, unusual
from megatron_jobs.errors import UserError

TABLE = (
    *gemma2.TABLE,
    Row(ATTENTION + "q_layernorm.weight", (THEIRS + "self_attn.q_norm.weight",)),
    Row(ATTENTION + "k_layernorm.weight", (THEIRS + "self_attn.k_norm.weight",)),
)
FIXED = {**gemma2.FIXED, "qk_norm": True}
FREE = gemma2.FREE - {"attention_softcap"} | {"local_rope_base"}
BASES = {FULL: 1_000_000, SLIDING: 10_000}
"""Where config.json says nothing."""
LARGER, MODEL_TYPE, ARCHITECTURE = "gemma3", "gemma3_text", "Gemma3ForCausalLM"
UNSAID: dict[str, Any] = {
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131_072,
}
"""Sizes that a `text_config` need not say: those of Gemma3TextConfig of transformers."""
OF_BOTH = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Those of the larger model count."""
LANGUAGE = re.compile(r"^(?:model\.)?language_model\.(?:model\.)?(?!lm_head\.)")
"""Before the names of the language part, in older files and in newer; but its output layer."""
PICTURES = r"(?:model\.)?(?:vision_tower|multi_modal_projector)\..+"


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    config = language_part(config)
    if config.get("attn_logit_softcapping") is not None:
        found = config["attn_logit_softcapping"]
        raise UserError(f"config.json: attn_logit_softcapping {found}: Gemma 3 has none")
    period = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
    types = config.get("layer_types") or in_turn(config["num_hidden_layers"], period)
    return {
        **gemma2.shape(config, types),
        **angles(config),
        "logit_softcap": config.get("final_logit_softcapping"),
        "qk_norm": True,
    }


def language_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """config.json of the language part of one that sees pictures; any other as it is."""
    if config.get("model_type") != LARGER:
        return config
    text = config["text_config"]
    if text.get("model_type", MODEL_TYPE) != MODEL_TYPE:
        found = f"config.json: text_config.model_type {text['model_type']!r}"
        raise UserError(f"{found}: only {MODEL_TYPE!r} can be computed")
    only(config, tie_word_embeddings=text.get("tie_word_embeddings", True))
    kept = {key: config[key] for key in OF_BOTH if key in config}
    own = {"architectures": [ARCHITECTURE], "model_type": MODEL_TYPE}
    return UNSAID | dict(text) | kept | own


def renamed(name: str, _: ModelConfig) -> str:
    """Without what stands before it in a larger model, with what a model without head lacks."""
    if re.fullmatch(PICTURES, name):
        return name
    name = LANGUAGE.sub("model.", name, count=1).removeprefix("language_model.")
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def angles(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of layers that see everything, and of those with a window, which nothing stretches."""
    said = config.get("rope_parameters") or {}
    odd = sorted(set(said) - {FULL, SLIDING})
    if odd:
        raise UserError(f"config.json: rope_parameters.{odd[0]}: {FULL} and {SLIDING} only")
    far, near = (dict(said.get(kind) or {}) for kind in (FULL, SLIDING))
    far |= config.get("rope_scaling") or {}
    only(near, rope_type="default", type="default")
    far.setdefault("rope_theta", config.get("rope_theta") or BASES[FULL])
    base = near.get("rope_theta") or config.get("rope_local_base_freq") or BASES[SLIDING]
    found = read_angles({**config, "rope_scaling": None, "rope_parameters": far}, kinds=("linear",))
    return found | {"local_rope_base": whole_base(base)}


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings, with the words of newer and of older readers."""
    local = float(model.local_rope_base or model.rope_base)
    stretch = told_scaling(model.rope_scaling)
    return {
        **gemma2.told_shape(model),
        "rope_parameters": {
            FULL: {"rope_type": "default"} | stretch | {"rope_theta": float(model.rope_base)},
            SLIDING: {"rope_type": "default", "rope_theta": local},
        },
        "rope_theta": float(model.rope_base),
        "rope_local_base_freq": local,
        "rope_scaling": stretch or None,
        "attn_logit_softcapping": None,
    }


def misfit(model: ModelConfig) -> str:
    """Why a model is no Gemma 3, or nothing."""
    stretch = model.rope_scaling
    if stretch and stretch.kind != "linear":
        return f"rope_scaling {stretch.kind}"
    if stretch and model.local_rope_base is None:
        return "local_rope_base None with rope_scaling"
    return unusual(model, FIXED, free=FREE) or gemma2.odd_scales(model)


GEMMA3 = Family(
    "gemma3",
    MODEL_TYPE,
    ARCHITECTURE,
    TABLE,
    settings,
    config,
    misfit,
    ignored=(PICTURES,),
    renamed=renamed,
    larger=LARGER,
    language_part=language_part,
)
