"""Mistral: a Llama whose layers may all have a window."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.angles import read_angles
from megatron_jobs.convert.families import llama
from megatron_jobs.convert.family import Family
from megatron_jobs.convert.fit import only, unusual

FREE = (llama.FREE | {"window"}) - {"bias"}
WINDOW = 4096
"""Where config.json does not say whether there is one."""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, layer_types=None)
    window = config.get("sliding_window", WINDOW)
    return {**llama.shape(config), **read_angles(config), "window": window}


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    return {**llama.told_shape(model), "sliding_window": model.window}


def misfit(model: ModelConfig) -> str:
    """Why a model is no Mistral, or nothing."""
    return unusual(model, free=FREE) or llama.odd_parts(model)


MISTRAL = Family(
    "mistral",
    "mistral",
    "MistralForCausalLM",
    llama.DENSE,
    settings,
    config,
    misfit,
    ignored=llama.LLAMA.ignored,
)
