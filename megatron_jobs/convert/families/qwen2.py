"""Qwen 2 and 2.5: biases of queries, keys and values; perhaps a window in the later layers."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.angles import read_angles
from megatron_jobs.convert.families import llama
from megatron_jobs.convert.families.gemma2 import FULL, SLIDING, windows
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import only, unusual
from megatron_jobs.convert.forms import QKV

TABLE = (
    *llama.DENSE,
    Row(llama.ATTENTION + "linear_qkv.bias", llama.three("bias"), QKV),
)
FREE = (llama.FREE | {"window", "full_layers"}) - {"bias"}
FIRST, WINDOW = 28, 4096
"""Where config.json does not say it: the first layer with a window, and how wide it is."""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, head_dim=config["hidden_size"] // config["num_attention_heads"])
    return {**shape(config), "qkv_bias": True}


def shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """What Qwen 2 and 3 say alike."""
    layers = config["num_hidden_layers"]
    window = config.get("sliding_window", WINDOW) if config.get("use_sliding_window") else None
    first = config.get("max_window_layers", FIRST) if window is not None else layers
    types = config.get("layer_types") or [FULL if n < first else SLIDING for n in range(layers)]
    return {**llama.shape(config), **read_angles(config), **windows(types, window)}


def told_shape(model: ModelConfig) -> dict[str, Any]:
    """The way back from `shape`."""
    near = [model.window_of(layer) is not None for layer in range(model.layers)]
    return {
        **llama.told_shape(model),
        "use_sliding_window": any(near),
        "sliding_window": model.window if any(near) else None,
        "max_window_layers": near.index(True) if any(near) else model.layers,
        "layer_types": [SLIDING if is_near else FULL for is_near in near],
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return told_shape(model)


def misfit(model: ModelConfig) -> str:
    """Why a model is no Qwen 2, or nothing."""
    if model.head_size() * model.heads != model.hidden:
        return f"head_dim {model.head_size()}"
    return unusual(model, {"qkv_bias": True}, free=FREE) or llama.odd_parts(model)


QWEN2 = Family("qwen2", "qwen2", "Qwen2ForCausalLM", TABLE, settings, config, misfit)
