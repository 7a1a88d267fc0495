"""One layer of ours and of theirs, taken apart into the same parts under the same names.

B sequences, T positions, N heads, D columns of a head, H hidden, F ffn, G key/value groups, Q query
heads of a group. Names are those of our modules below a layer, but the fused ones are apart:
`self_attention.q`, `.k`, `.v`, `mlp.gate`, `mlp.up`, `mlp.experts.3.gate`.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from megatron_jobs.checkpoint.anatomy import Anatomy, matrix_of, part_of
from megatron_jobs.checkpoint.trace import (
    Point,
    our_layers,
    our_logits,
    their_layers,
    their_logits,
    watching,
)
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.kernels.rope import rotate

ATTENTION = "self_attention."
Tensors = dict[str, Tensor]


@dataclass
class Evidence:
    """A layer's tensors and what passed through it; fp32 on the CPU."""

    weights: Tensors = field(default_factory=dict)
    """By name and kind: `self_attention.q.weight` [N D, H], `mlp.up.bias` [F]."""
    states: Tensors = field(default_factory=dict)
    """normed [B, T, H], q, k (as they are turned), q_turned, k_turned, mixed [B, T, N, D],
    attention, mlp_input, inner, mlp, output. Latent attention may keep turned columns in any
    order, and has scores [B, T, N T] beside them."""


@torch.no_grad()
def our_evidence(chunk: Any, model: ModelConfig, layer: str, tokens_BT: Tensor) -> Evidence:
    """A layer of ours (`layer 3`), in a run over the tokens."""
    block = our_layers(chunk)[layer]
    found = Evidence(our_weights(block, model))
    with watching(_our_points(block), found.states, turned=True):
        our_logits(chunk, tokens_BT, model)
    _turn(found.states, part_of(block, ATTENTION + "core_attention"))
    _as_heads(found.states, model, tokens_BT.size(1))
    return found


@torch.no_grad()
def their_evidence(theirs: Any, model: ModelConfig, layer: str, tokens_BT: Tensor) -> Evidence:
    """The same of a model of transformers; `model` is what they are thought to be."""
    block, anatomy = their_layers(theirs)[layer]
    found = Evidence(their_weights(block, anatomy, model))
    mixing = part_of(block, anatomy.attention)
    points = _their_points(block, anatomy)
    with watching(points, found.states), mixed_values(mixing, found.states):
        their_logits(theirs, tokens_BT)
    if "qkv" in found.states:
        parts = _apart(found.states.pop("qkv").movedim(-1, 0), anatomy, model)
        found.states |= {n: p.movedim(0, -1) for n, p in zip("qkv", parts, strict=True)}
    _as_heads(found.states, model, tokens_BT.size(1))
    return found


def _turn(states: Tensors, core: Any) -> None:
    """What our core of attention makes of queries and keys: it turns them itself."""
    rope = getattr(core, "rope", None)
    for name in ("q", "k"):
        if name not in states:
            continue
        turned = states[name].transpose(0, 1)  # positions first, as the core has them
        if rope is not None:
            cos, sin = (table[: len(turned)] for table in rope.turns(len(turned), like=turned))
            turned = rotate(turned, cos, sin, interleaved=rope.interleaved)
        states[f"{name}_turned"] = turned.transpose(0, 1)


def _our_points(block: nn.Module) -> list[Point]:
    core = part_of(block, ATTENTION + "core_attention")
    return [
        Point("normed", part_of(block, "self_attention"), "input"),
        Point("q", core, "input", 0),
        Point("k", core, "input", 1),
        Point("v", core, "input", 2),
        Point("mixed", core),
        Point("attention", part_of(block, ATTENTION + "linear_proj")),
        Point("mlp_input", part_of(block, "mlp"), "input"),
        Point("inner", part_of(block, "mlp.linear_fc2"), "input"),
        Point("mlp", part_of(block, "mlp")),
        Point("output", block),
    ]


def _their_points(block: nn.Module, anatomy: Anatomy) -> list[Point]:
    projections = ("q", "k", "v") if len(anatomy.qkv) == 3 else ("qkv",)
    named = zip(projections, anatomy.qkv, strict=False)
    q_norm, k_norm = (anatomy.norms.get(f"{ATTENTION}{n}_layernorm", "") for n in ("q", "k"))
    whole = anatomy.mlp + "." in anatomy.down  # not where a block's two matrices lie apart
    return [
        Point("normed", part_of(block, anatomy.attention), "input"),
        *(Point(name, part_of(block, where)) for name, where in named),
        Point("q_normed", part_of(block, q_norm)),
        Point("k_normed", part_of(block, k_norm)),
        Point("attention", part_of(block, anatomy.proj)),
        Point("mlp_input", part_of(block, anatomy.mlp), "input"),
        Point("inner", part_of(block, anatomy.down), "input"),
        Point("mlp", part_of(block, anatomy.mlp) if whole else None),
        Point("output", block),
    ]


@contextmanager
def mixed_values(attention: nn.Module | None, seen: Tensors) -> Iterator[None]:
    """Note what an attention of theirs is given after rotation, [B, T, N, D], and what it makes."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    own = set() if attention is None else set(attention.modules())

    def mix(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **words: Any) -> Any:
        plain = sys.modules[type(module).__module__].eager_attention_forward
        made = plain(module, q, k, v, *rest, **words)
        if module in own:
            turned = {"q_turned": q, "k_turned": k, "v": v}
            passed = {name: value.transpose(1, 2) for name, value in turned.items()}
            for name, value in {**passed, "mixed": made[0]}.items():
                seen[name] = value.detach().float().cpu().clone()
        return made

    ALL_ATTENTION_FUNCTIONS["eager"] = mix
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["eager"]


def _as_heads(states: Tensors, model: ModelConfig, length: int) -> None:
    """q, k, turned or not, v and mixed values all become [B, T, heads, columns]."""
    for name in ("q", "k"):
        normed = states.pop(f"{name}_normed", None)
        if normed is not None:  # some of theirs have heads first there
            states[name] = normed if normed.size(1) == length else normed.transpose(1, 2)
    if model.latent is not None:
        for name in ("q", "k"):
            states.pop(name, None)  # in parts there; only what is turned can be compared
    keys = model.groups() if model.latent is None else model.heads
    for name in {"q", "q_turned", "mixed", "k", "k_turned", "v"} & states.keys():
        rows, heads = states[name].flatten(2), keys if name[0] in "kv" else model.heads
        states[name] = rows.view(*rows.shape[:2], heads, -1)
    if model.latent is not None and {"q_turned", "k_turned"} <= states.keys():
        q_BTND, k_BTND = states["q_turned"], states["k_turned"]
        states["scores"] = torch.einsum("btnd,bsnd->btns", q_BTND, k_BTND).flatten(2)


def split_qkv(fused: Tensor, model: ModelConfig) -> list[Tensor]:
    """Our [G (Q + 2) D, ...] as q [G Q D, ...], k and v [G D, ...]."""
    size = model.head_size()
    grouped = fused.reshape(model.groups(), -1, *fused.shape[1:])
    sizes = [grouped.size(1) - 2 * size, size, size]
    return [part.flatten(0, 1) for part in torch.split(grouped, sizes, dim=1)]


def _apart(fused: Tensor, anatomy: Anatomy, model: ModelConfig) -> list[Tensor]:
    """Their fused q, k and v, each by itself."""
    size = model.head_size()
    if anatomy.fused == "heads":
        by_head = fused.reshape(model.heads, 3, size, *fused.shape[1:])
        return [by_head[:, number].flatten(0, 1) for number in range(3)]
    sizes = [model.heads * size, model.groups() * size, model.groups() * size]
    return list(torch.split(fused, sizes))


def our_weights(block: nn.Module, model: ModelConfig) -> Tensors:
    """All tensors of a layer of ours, the fused ones apart."""
    found: Tensors = {}
    for name, value in block.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        name = name.replace("experts.local_experts.", "experts.")
        stem, _, kind = name.rpartition(".")
        if stem.endswith("linear_qkv"):
            parts = split_qkv(value, model)
            found |= {f"{ATTENTION}{n}.{kind}": p for n, p in zip("qkv", parts, strict=True)}
        elif stem == "cross_attention.linear_kv":
            by_head = value.reshape(model.heads, 2, -1, *value.shape[1:])
            found |= {
                f"cross_attention.{n}.{kind}": by_head[:, i].flatten(0, 1)
                for i, n in enumerate("kv")
            }
        elif stem.endswith("linear_fc1") and model.is_gated():
            found |= _halves(stem.removesuffix("linear_fc1"), value, kind)
        else:
            found[name.replace("cross_attention.linear_q.", "cross_attention.q.")] = value
    return {name: _kept(value) for name, value in found.items()}


def their_weights(block: nn.Module, anatomy: Anatomy, model: ModelConfig) -> Tensors:
    """All tensors of a layer of theirs under the names of ours."""
    places = {
        ATTENTION + "linear_proj": anatomy.proj,
        "mlp.linear_fc2": anatomy.down,
        "mlp.router": "mlp.gate",
        **anatomy.norms,
        **anatomy.others,
    }
    found: Tensors = {}
    for ours, place in places.items():
        found |= tensors_of(ours, part_of(block, place))
    held = block.state_dict()
    found |= {ours: held[name] for ours, name in anatomy.tensors.items() if name in held}
    found |= _their_qkv(block, anatomy, model)
    found |= _their_inner("mlp.", block, anatomy.inner, model)
    found |= _their_experts(part_of(block, "mlp.experts"))
    if anatomy.shared:
        names = [f"{anatomy.shared}.{name}_proj" for name in ("gate", "up", "down")]
        found |= _their_inner("mlp.shared_experts.", block, tuple(names[:2]), model)
        found |= tensors_of("mlp.shared_experts.linear_fc2", part_of(block, names[2]))
    return {name: _kept(value) for name, value in found.items()}


def _kept(weight: Tensor) -> Tensor:
    return weight.detach().float().cpu().clone()


def tensors_of(name: str, module: nn.Module | None) -> Tensors:
    """A module's matrix (or vector) and its bias, under a name of ours."""
    weight, bias = matrix_of(module), getattr(module, "bias", None)
    kinds = {"weight": weight, "bias": bias}
    return {f"{name}.{kind}": value for kind, value in kinds.items() if value is not None}


def _their_qkv(block: nn.Module, anatomy: Anatomy, model: ModelConfig) -> Tensors:
    found: Tensors = {}
    if len(anatomy.qkv) == 3:
        for name, place in zip("qkv", anatomy.qkv, strict=True):
            found |= tensors_of(ATTENTION + name, part_of(block, place))
    elif anatomy.qkv:
        for name, value in tensors_of("qkv", part_of(block, anatomy.qkv[0])).items():
            parts, kind = _apart(value, anatomy, model), name.removeprefix("qkv.")
            found |= {f"{ATTENTION}{n}.{kind}": p for n, p in zip("qkv", parts, strict=True)}
    return found


def _their_inner(
    prefix: str, block: nn.Module, places: tuple[str, ...], model: ModelConfig
) -> Tensors:
    found: Tensors = {}
    places = tuple(place for place in places if part_of(block, place) is not None)
    if len(places) == 2:
        for name, place in zip(("gate", "up"), places, strict=True):
            found |= tensors_of(prefix + name, part_of(block, place))
        return found
    for name, value in tensors_of("fused", part_of(block, places[0]) if places else None).items():
        kind = name.removeprefix("fused.")
        gated = _halves(prefix, value, kind)
        found |= gated if model.is_gated() else {f"{prefix}linear_fc1.{kind}": value}
    return found


def _their_experts(experts: Any) -> Tensors:
    found: Tensors = {}
    if experts is None:
        return found
    for number, fused in enumerate(experts.gate_up_proj):
        at = f"mlp.experts.{number}."
        found |= _halves(at, fused, "weight")
        found[at + "linear_fc2.weight"] = experts.down_proj[number]
    return found


def _halves(prefix: str, fused: Tensor, kind: str) -> Tensors:
    gate, up = fused.chunk(2)
    return {f"{prefix}gate.{kind}": gate, f"{prefix}up.{kind}": up}
