"""The operator of scaled, capped and masked softmax. B sequences, N heads, Q queries, K keys.

softmax(scores, allowed?, scale, cap, causal) -> weights
softmax_backward(dweights, scores, weights, scale, cap, causal) -> dscores
"""

from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels.native import CODES, checked, cpu
from megatron_jobs.kernels.ops import define, differentiate


def output_of_softmax(
    scores: Tensor, allowed: Tensor | None, scale: float, cap: float, causal: bool
) -> Tensor:
    """Empty weights."""
    return torch.empty_like(scores)


def softmax_on_cpu(
    scores: Tensor, allowed: Tensor | None, scale: float, cap: float, causal: bool
) -> Tensor:
    """The operator `softmax`."""
    scores_at = checked("scores", scores, axes=4)
    given: dict[str, Any] = {"allowed": 0, "strides": (0, 0, 0)}
    if allowed is not None:
        place = checked("allowed", allowed, dtypes=(torch.bool,), shape=scores.shape, strided=True)
        given = {"allowed": place, "strides": allowed.stride()[:3]}
    weights = output_of_softmax(scores, allowed, scale, cap, causal)
    cpu().softmax_forward(scores_at, weights.data_ptr(), rule(scores, scale, cap, causal, **given))
    return weights


def output_of_backward(
    dweights: Tensor, scores: Tensor, weights: Tensor, scale: float, cap: float, causal: bool
) -> Tensor:
    """Empty dscores."""
    return torch.empty_like(scores)


def softmax_backward_on_cpu(
    dweights: Tensor, scores: Tensor, weights: Tensor, scale: float, cap: float, causal: bool
) -> Tensor:
    """The operator `softmax_backward`."""
    like: dict[str, Any] = {"dtypes": (scores.dtype,), "shape": scores.shape}
    inputs = (
        checked("dweights", dweights, **like),
        checked("scores", scores, axes=4),
        checked("weights", weights, **like),
    )
    dscores = output_of_backward(dweights, scores, weights, scale, cap, causal)
    numbers = rule(scores, scale, cap, causal, allowed=0, strides=(0, 0, 0))
    cpu().softmax_backward(*inputs, dscores.data_ptr(), numbers)
    return dscores


def rule(scores: Tensor, scale: float, cap: float, causal: bool, **mask: Any) -> Any:
    """Sizes and kinds, as the extension takes them."""
    return cpu().SoftmaxRule(
        shape=list(scores.shape),
        causal=causal,
        scale=scale,
        cap=cap,
        dtype=CODES[scores.dtype],
        threads=torch.get_num_threads(),
        **mask,
    )


softmax = define(
    "softmax(Tensor scores, Tensor? allowed, float scale, float cap, bool causal) -> Tensor",
    cpu=softmax_on_cpu,
    fake=output_of_softmax,
)
softmax_backward = define(
    "softmax_backward(Tensor dweights, Tensor scores, Tensor weights, float scale, float cap,"
    " bool causal) -> Tensor",
    cpu=softmax_backward_on_cpu,
    fake=output_of_backward,
)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Scores, weights and the numbers; weights tell what was masked."""
    scores, _, ctx.scale, ctx.cap, ctx.causal = inputs
    ctx.save_for_backward(scores, output)


def backward(ctx: Any, dweights: Tensor) -> tuple[Any, ...]:
    """The gradient of the scores."""
    scores, weights = ctx.saved_tensors
    dweights = dweights.contiguous()
    dscores = softmax_backward(dweights, scores, weights, ctx.scale, ctx.cap, ctx.causal)
    return dscores, None, None, None, None


differentiate("softmax", backward, keep, once="softmax")
