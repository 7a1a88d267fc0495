"""What architectures with experts have in common: lines of their tables, keys of config.json."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.angles import read_angles
from megatron_jobs.convert.families import llama
from megatron_jobs.convert.families.llama import MLP, THEIRS
from megatron_jobs.convert.family import Row, When

EXPERT = "experts.local_experts.{expert}."
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
STRETCHES = ("linear", "llama3", "yarn")


def is_sparse(model: ModelConfig, layer: int) -> bool:
    """Whether a layer has experts."""
    return model.has_experts(layer)


def is_dense(model: ModelConfig, layer: int) -> bool:
    """Whether it has not."""
    return not model.has_experts(layer)


def has_shared(model: ModelConfig, layer: int) -> bool:
    """Whether a block stands beside its experts."""
    return is_sparse(model, layer) and model.shared_ffn > 0


def block(
    ours: str, theirs: str, names: tuple[str, str, str] = PROJECTIONS, *, when: When
) -> tuple[Row, ...]:
    """A feed-forward block; `names` are theirs of gate, up and down."""
    gate, up, down = (f"{THEIRS}{theirs}{name}.weight" for name in names)
    return (
        Row(f"{MLP}{ours}linear_fc1.weight", (gate, up), when=when),
        Row(f"{MLP}{ours}linear_fc2.weight", (down,), when=when),
    )


BLOCKS = (
    *block("", "mlp.", when=is_dense),
    *block(EXPERT, "mlp.experts.{expert}.", when=is_sparse),
    Row(MLP + "router.weight", (THEIRS + "mlp.gate.weight",), when=is_sparse),
)
"""Dense blocks, experts and routers, as all but Mixtral name them."""


def shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that all of them give in the same words."""
    found = llama.shape(config) | read_angles(config, kinds=STRETCHES)
    return found | {"experts_per_token": config["num_experts_per_tok"]}


def told_shape(model: ModelConfig) -> dict[str, Any]:
    """The way back from `shape`."""
    return llama.told_shape(model) | {"num_experts_per_tok": model.experts_per_token}
