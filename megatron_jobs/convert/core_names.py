"""Where our tensors stand in megatron-core's checkpoints, read both ways.

Equal layers lie under one key, the layer's number first in the shape; so do a layer's experts. When
layers differ (some have experts, some do not) each has keys of its own. The norm before a linear
layer is kept with that layer, as Transformer Engine has it.

Source: megatron-core, TransformerBlock.sharded_state_dict and SequentialMLP.sharded_state_dict.
"""

import re
from dataclasses import dataclass

from megatron_jobs.config.model import ModelConfig

INPUT_NORM = ("input_layernorm.", "self_attention.linear_qkv.layer_norm_")
MLP_NORM = ("pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_")
LATENT_NORMS = tuple(
    (f"self_attention.{part}_layernorm.", f"self_attention.linear_{part}_up_proj.layer_norm_")
    for part in ("q", "kv")
)
"""Beginning of our name within a layer, and of its key."""
LAYER = re.compile(r"(?P<stack>.*\blayers)\.(?P<number>\d+)\.(?P<rest>.+)")
EXPERT = re.compile(r"(?P<before>.*\bexperts)\.local_experts\.(?P<number>\d+)\.(?P<rest>.+)")
STACKED_LAYERS = re.compile(r"(?P<before>(?:.*\.)?layers)\.(?P<rest>(?!\d).+)")
STACKED_EXPERTS = re.compile(r"(?P<before>.*\bexperts)\.experts\.(?P<rest>(?!\d).+)")
KEYED_EXPERT = re.compile(r"(?P<before>.*\bexperts)\.experts\.(?P<number>\d+)\.(?P<rest>.+)")


@dataclass(frozen=True)
class Place:
    """Where a tensor stands."""

    key: str
    index: tuple[int, ...] = ()
    """Its layer and its expert, where the key has an axis for them."""
    counts: tuple[int, ...] = ()
    """How long those axes are; the key's whole shape is `counts` + the tensor's."""


def is_homogeneous(model: ModelConfig) -> bool:
    """Whether all layers have the same tensors."""
    return not (model.experts and model.dense_layers)


def has_experts(model: ModelConfig, layer: int) -> bool:
    """Whether a layer's feed-forward block is a mixture."""
    return model.experts > 0 and layer not in model.dense_layers


def norm_names(model: ModelConfig, *, experts: bool) -> dict[str, str]:
    """The norms of a layer that a linear layer keeps: beginnings of names within the layer.

    Args:
        experts: whether its feed-forward block is a mixture of experts.
    """
    names = dict(LATENT_NORMS if model.latent else [INPUT_NORM])
    return names if experts else names | dict([MLP_NORM])


def layers_of(stack: str, model: ModelConfig) -> int:
    """How many layers `decoder.layers` or `encoder.layers` has."""
    two = model.kind == "encoder_decoder" and stack.startswith("encoder")
    return model.encoder_layers if two else model.layers


def place_of(name: str, model: ModelConfig) -> Place:
    """Where one of our tensors stands in a checkpoint of this model."""
    found = LAYER.fullmatch(name)
    if not found:
        return Place(name)
    stack, layer, rest = found["stack"], int(found["number"]), found["rest"]
    for ours, key in norm_names(model, experts=has_experts(model, layer)).items():
        if rest.startswith(ours):
            rest = key + rest.removeprefix(ours)
    index: tuple[int, ...] = (layer,)
    counts: tuple[int, ...] = (layers_of(stack, model),)
    if not is_homogeneous(model):
        stack, index, counts = f"{stack}.{layer}", (), ()
    expert = EXPERT.fullmatch(rest)
    if expert:
        rest = f"{expert['before']}.experts.{expert['rest']}"
        index, counts = (*index, int(expert["number"])), (*counts, model.experts)
    return Place(f"{stack}.{rest}", index, counts)


def leading_axes(key: str) -> int:
    """How many axes of a key's shape count layers and experts."""
    return sum(pattern.fullmatch(key) is not None for pattern in (STACKED_LAYERS, STACKED_EXPERTS))


def name_of(key: str, index: tuple[int, ...] = ()) -> str:
    """Our name of what stands in a checkpoint, in any of megatron-core's ways to lay it out.

    Args:
        index: numbers on the `leading_axes` of the key.
    """
    assert len(index) == leading_axes(key), f"{key} has {leading_axes(key)} leading axes: {index}"
    numbers = iter(index)
    stacked = STACKED_LAYERS.fullmatch(key)
    if stacked:
        key = f"{stacked['before']}.{next(numbers)}.{stacked['rest']}"
    experts, keyed = STACKED_EXPERTS.fullmatch(key), KEYED_EXPERT.fullmatch(key)
    if experts:
        key = f"{experts['before']}.local_experts.{next(numbers)}.{experts['rest']}"
    elif keyed:
        key = f"{keyed['before']}.local_experts.{keyed['number']}.{keyed['rest']}"
    found = LAYER.fullmatch(key)
    if not found:
        return key
    rest = found["rest"]
    for ours, kept in (INPUT_NORM, MLP_NORM, *LATENT_NORMS):
        if rest.startswith(kept):
            rest = ours + rest.removeprefix(kept)
    return f"{found['stack']}.{found['number']}.{rest}"
