"""What is wrong with a layer whose tensors are right: the first value on its way that differs.

B sequences, T positions, N heads, D columns of a head, H hidden.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from megatron_jobs.checkpoint.evidence import Evidence
from megatron_jobs.checkpoint.rotary import rotary_faults
from megatron_jobs.config.model import ModelConfig

STATE_TOLERANCE = 1e-4
"""Of a token's vector, relative to its length: more is not put down to rounding."""


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of a token's vector [..., H], relative to its length."""
    if ours.shape != theirs.shape:
        return float("inf")
    lengths = theirs.norm(dim=-1).clamp_min(1e-9)
    found = float(((ours - theirs).norm(dim=-1) / lengths).max())
    return float("inf") if found != found else found


def differs(name: str, ours: Evidence, theirs: Evidence) -> bool:
    """Whether both have the value, and it is not the same."""
    if name not in ours.states or name not in theirs.states:
        return False
    return distance(_flat(ours.states[name]), _flat(theirs.states[name])) > STATE_TOLERANCE


def _flat(x: Tensor) -> Tensor:
    """Tokens in one row each: blocks of experts drop the batch."""
    return x.reshape(-1, x.size(-1))


def state_faults(ours: Evidence, theirs: Evidence, model: ModelConfig) -> Iterator[str]:
    """Why the layer's output differs though its tensors do not, as one sentence."""
    by_scores = {"q_turned", "k_turned"} if "scores" in ours.states else set()
    for name, explain in WAY.items():
        if name not in by_scores and differs(name, ours, theirs):
            found = explain(ours, theirs, model)
            yield from found or [f"{PLACES[name]} differs, for no reason known here"]
            return


def _norm(name: str, before: str) -> Callable[[Evidence, Evidence, ModelConfig], list[str]]:
    def explain(ours: Evidence, theirs: Evidence, model: ModelConfig) -> list[str]:
        weight = theirs.weights.get(f"{name}.weight")
        one, other = ours.states[before], theirs.states[before]
        return [] if weight is None else norm_faults(name, one, other, weight, theirs)

    return explain


def norm_faults(
    name: str, ours: Tensor, theirs: Tensor, weight_H: Tensor, side: Evidence
) -> list[str]:
    """How two norms of the same input under the same weight differ."""
    bias = side.weights.get(f"{name}.bias", torch.zeros_like(weight_H))
    one, other = ours - bias, theirs - bias
    more = (1 + weight_H) / weight_H
    if distance(one * more, other) < STATE_TOLERANCE:
        return [f"{name}: theirs multiplies by 1 + weight, ours by weight: set norm_offset: true"]
    if distance(one / more, other) < STATE_TOLERANCE:
        return [f"{name}: ours multiplies by 1 + weight, theirs by weight: set norm_offset: false"]
    scale = (one * other).sum(-1, keepdim=True) / one.square().sum(-1, keepdim=True)
    if distance(one * scale, other) < STATE_TOLERANCE:
        return [f"{name}: each token is scaled otherwise: norm_eps, or where the norm stands"]
    return [f"{name} is of another kind, or of another input: norm, norm_place"]


def _rotary(ours: Evidence, theirs: Evidence, model: ModelConfig) -> list[str]:
    needed = ("q", "k", "q_turned", "k_turned")
    if any(name not in side.states for name in needed for side in (ours, theirs)):
        return []
    return rotary_faults(ours.states, theirs.states, model)


def _scores(ours: Evidence, theirs: Evidence, model: ModelConfig) -> list[str]:
    return ["queries and keys meet at other angles: rope_base, rope_scaling, rope_interleaved"]


def _mixed(ours: Evidence, theirs: Evidence, model: ModelConfig) -> list[str]:
    one, other = ours.states["mixed"], theirs.states["mixed"]
    if one.shape != other.shape:
        return []
    lengths = other.flatten(2).norm(dim=-1).clamp_min(1e-9)
    far = ((one - other).flatten(2).norm(dim=-1) / lengths > STATE_TOLERANCE).any(0)
    first = int(far.nonzero().min())
    if model.kind == "decoder" and first > 1:
        return [f"attention is right up to token {first - 1} and wrong from {first} on: window"]
    scales = [attention_scale(side.states) for side in (ours, theirs)]
    if scales[0] is not None and scales[1] is not None:
        found = f"ours {scales[0]:.6g}, theirs {scales[1]:.6g}"
        return [f"the attention scale differs: {found}"]
    return []


def attention_scale(states: dict[str, Tensor]) -> float | None:
    """What multiplies the scores: from the second token, which mixes two values.

    p v0 + (1 - p) v1 with log(p / (1 - p)) = scale (q k0 - q k1), for every head. None when heads
    disagree, as when scores are capped.
    """
    if any(name not in states for name in ("q_turned", "k_turned", "v", "mixed")):
        return None
    q_BND, mixed_BND = states["q_turned"][:, 1].double(), states["mixed"][:, 1].double()
    share = q_BND.size(1) // states["v"].size(2)
    keys, values = (
        states[name][:, :2].double().repeat_interleave(share, dim=2)
        if states[name].size(2) != q_BND.size(1)
        else states[name][:, :2].double()
        for name in ("k_turned", "v")
    )
    apart = values[:, 0] - values[:, 1]
    shares = ((mixed_BND - values[:, 1]) * apart).sum(-1) / apart.square().sum(-1)
    scores = (q_BND * (keys[:, 0] - keys[:, 1])).sum(-1)
    clear = (shares > 0.01) & (shares < 0.99) & (scores.abs() > 1e-2)
    scales = shares[clear].logit() / scores[clear]
    if not len(scales) or float(scales.max() - scales.min()) > 1e-2 * float(scales.abs().mean()):
        return None
    return float(scales.median())


def _activation(ours: Evidence, theirs: Evidence, model: ModelConfig) -> list[str]:
    return [f"the activation differs: ours is {model.activation}"] if not model.experts else []


def _block(ours: Evidence, theirs: Evidence, model: ModelConfig) -> list[str]:
    if not model.experts:
        return []
    rule = "its rules do (score, normalize, scale, groups, experts_per_token)"
    return [f"experts and router are theirs, what comes out is not: {rule}"]


def _sum(ours: Evidence, theirs: Evidence, model: ModelConfig) -> list[str]:
    return ["attention and block are theirs, their sum is not: norm_place, parallel_residual"]


def _unknown(ours: Evidence, theirs: Evidence, model: ModelConfig) -> list[str]:
    return []


WAY: dict[str, Callable[[Evidence, Evidence, ModelConfig], list[str]]] = {
    "normed": _norm("input_layernorm", "normed"),
    "q": _unknown,
    "k": _unknown,
    "q_turned": _rotary,
    "k_turned": _rotary,
    "scores": _scores,
    "mixed": _mixed,
    "attention": _unknown,
    "mlp_input": _norm("pre_mlp_layernorm", "mlp_input"),
    "inner": _activation,
    "mlp": _block,
    "output": _sum,
}
"""A layer's values in their order."""
PLACES = {
    "normed": "input_layernorm",
    "q": "self_attention.q (or its norm)",
    "k": "self_attention.k (or its norm)",
    "q_turned": "self_attention.q after rotation",
    "k_turned": "self_attention.k after rotation",
    "scores": "self_attention's scores",
    "mixed": "self_attention.core_attention",
    "attention": "self_attention.linear_proj",
    "mlp_input": "pre_mlp_layernorm",
    "inner": "mlp.linear_fc1 (or the activation)",
    "mlp": "mlp",
    "output": "the layer",
}
