"""Rotary positions and softmax on CUDA: see `rope_ops`, `softmax_ops`.

S positions, B sequences, N heads, D columns; Q queries, K keys. Each row is one team's of threads:
two runs give the same bits.
"""

from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels import rope_ops, softmax_ops
from megatron_jobs.kernels.cuda import at, like, numbers, place
from megatron_jobs.kernels.native import CODES, cuda
from megatron_jobs.kernels.ops import run_on_cuda


def rope(
    x_SBND: Tensor, cos_SR: Tensor, sin_SR: Tensor, interleaved: bool, inverse: bool
) -> Tensor:
    """The operator `rope`."""
    y = rope_ops.output_of_rope(x_SBND, cos_SR, sin_SR, interleaved, inverse)
    angles = like(x_SBND, shape=(x_SBND.size(0), cos_SR.size(-1)))
    cuda().rope(
        at("x", x_SBND, strided=True, axes=4),
        at("cos", cos_SR, **angles),
        at("sin", sin_SR, **angles),
        y.data_ptr(),
        shape=list(x_SBND.shape),
        strides=steps(x_SBND),
        turned=cos_SR.size(-1),
        interleaved=interleaved,
        inverse=inverse,
        **numbers(x_SBND),
    )
    return y


def softmax(
    scores: Tensor, allowed: Tensor | None, scale: float, cap: float, causal: bool
) -> Tensor:
    """The operator `softmax`."""
    scores_at = at("scores", scores, axes=4)
    given: dict[str, Any] = {"allowed": 0, "strides": [0, 0, 0]}
    if allowed is not None:
        mask = {"dtypes": (torch.bool,), "shape": scores.shape, "strided": True}
        given = {"allowed": at("allowed", allowed, **mask), "strides": steps(allowed)}
    weights = softmax_ops.output_of_softmax(scores, allowed, scale, cap, causal)
    rule = softmax_rule(scores, scale, cap, causal=causal, **given)
    cuda().softmax_forward(scores_at, weights.data_ptr(), rule, **place(scores))
    return weights


def softmax_backward(
    dweights: Tensor, scores: Tensor, weights: Tensor, scale: float, cap: float, causal: bool
) -> Tensor:
    """The operator `softmax_backward`."""
    inputs = (
        at("dweights", dweights, **like(scores)),
        at("scores", scores, axes=4),
        at("weights", weights, **like(scores)),
    )
    dscores = torch.empty_like(scores)
    rule = softmax_rule(scores, scale, cap, causal=causal, allowed=0, strides=[0, 0, 0])
    cuda().softmax_backward(*inputs, dscores.data_ptr(), rule, **place(scores))
    return dscores


def softmax_rule(scores: Tensor, scale: float, cap: float, **kinds: Any) -> Any:
    """Sizes and kinds, as the extension takes them."""
    dtype = CODES[scores.dtype]
    return cuda().SoftmaxRule(shape=list(scores.shape), scale=scale, cap=cap, dtype=dtype, **kinds)


def steps(x: Tensor) -> list[int]:
    """Strides of the first three axes; 0 where there is one place, whose stride means nothing."""
    sizes = zip(x.shape[:3], x.stride()[:3], strict=True)
    return [stride if size > 1 else 0 for size, stride in sizes]


run_on_cuda("rope", rope)
run_on_cuda("softmax", softmax)
run_on_cuda("softmax_backward", softmax_backward)
