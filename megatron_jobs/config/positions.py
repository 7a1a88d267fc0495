"""Settings of positions and windows that cannot be, or would do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from megatron_jobs.config.settings import Problem

if TYPE_CHECKING:
    from megatron_jobs.config.model import ModelConfig

ROPE = ("rope_share", "rope_interleaved", "rope_scaling", "local_rope_base")
"""Settings that say nothing without rotary angles."""


def position_problems(model: ModelConfig) -> Iterator[Problem]:
    """Values that cannot work together; names are relative to the model."""
    yield from _window_problems(model)
    if model.position == "rope":
        yield from _column_problems(model)
        return
    for name in ROPE:
        if getattr(model, name) != type(model).model_fields[name].default:
            yield name, f"does nothing with position = {model.position}; it needs rope"


def _window_problems(model: ModelConfig) -> Iterator[Problem]:
    if model.window is None:
        for name in ("full_layers", "local_rope_base"):
            if getattr(model, name):
                yield name, "does nothing without a window"
    beyond = [layer for layer in model.full_layers if layer >= model.layers]
    if beyond:
        yield "full_layers", f"{beyond[0]} is no layer; they are 0 to {model.layers - 1}"


def _column_problems(model: ModelConfig) -> Iterator[Problem]:
    if model.latent is not None:
        return  # its own columns turn
    columns, head = model.rope_columns(), model.head_size()
    if model.rope_share == 1 and head % 2:
        yield "head_dim", f"{head} is odd; rotary angles turn pairs of columns"
    elif not 0 < columns <= head or columns % 2:
        rule = "not an even number of 2 or more that a head has"
        yield "rope_share", f"{model.rope_share} of {head} columns are {columns}, {rule}"
    scaling = model.rope_scaling
    for name in ("short_factors", "long_factors") if scaling else ():
        found = len(getattr(scaling, name))
        if found and found != columns // 2:
            rule = f"there must be one for each pair of {columns} columns"
            yield f"rope_scaling.{name}", f"{found} numbers; {rule}"
