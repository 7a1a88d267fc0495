"""The operator of rotary positions. S positions, B sequences, N heads, D columns, R that turn.

    rope(x, cos, sin, interleaved, inverse) -> y

The gradient is the inverse turn. It is no turn in place: queries and keys are parts of one tensor,
which autograd lets nobody write to.
"""

from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels.native import CODES, checked, cpu
from megatron_jobs.kernels.ops import define, differentiate


def output_of_rope(
    x_SBND: Tensor, cos_SR: Tensor, sin_SR: Tensor, interleaved: bool, inverse: bool
) -> Tensor:
    """Empty y, contiguous."""
    return x_SBND.new_empty(x_SBND.shape)


def rope_on_cpu(
    x_SBND: Tensor, cos_SR: Tensor, sin_SR: Tensor, interleaved: bool, inverse: bool
) -> Tensor:
    """The operator `rope`."""
    x_at = checked("x", x_SBND, strided=True, axes=4)
    y = output_of_rope(x_SBND, cos_SR, sin_SR, interleaved, inverse)
    angles: dict[str, Any] = {"dtypes": (x_SBND.dtype,), "shape": (x_SBND.size(0), cos_SR.size(-1))}
    cpu().rope(
        x_at,
        checked("cos", cos_SR, **angles),
        checked("sin", sin_SR, **angles),
        y.data_ptr(),
        shape=list(x_SBND.shape),
        strides=x_SBND.stride()[:3],
        turned=cos_SR.size(-1),
        dtype=CODES[x_SBND.dtype],
        interleaved=interleaved,
        inverse=inverse,
        threads=torch.get_num_threads(),
    )
    return y


rope = define(
    "rope(Tensor x, Tensor cos, Tensor sin, bool interleaved, bool inverse) -> Tensor",
    cpu=rope_on_cpu,
    fake=output_of_rope,
)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """The angles alone."""
    _, cos_SR, sin_SR, ctx.interleaved, ctx.inverse = inputs
    ctx.save_for_backward(cos_SR, sin_SR)


def backward(ctx: Any, dy_SBND: Tensor) -> tuple[Any, ...]:
    """The gradient of x."""
    cos_SR, sin_SR = ctx.saved_tensors
    dy_SBND = dy_SBND if dy_SBND.stride(-1) == 1 else dy_SBND.contiguous()
    dx_SBND = rope(dy_SBND, cos_SR, sin_SR, ctx.interleaved, not ctx.inverse)
    return dx_SBND, None, None, None, None


differentiate("rope", backward, keep)
