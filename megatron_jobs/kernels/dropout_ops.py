"""Operators of bias, dropout and addition in one pass, for CUDA alone. R rows, H columns.

    drop_add(x, bias?, residual, seed, dropout) -> y
    drop_add_backward(dy, seed, dropout, bias) -> (dx, dbias)

Which numbers are dropped follows from `seed` (int64 [1], on the GPU) and their places: no mask is
kept, the gradient draws again. The seed is of torch's generator: its state alone decides.
"""

from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels.ops import define, differentiate


def output_of_drop_add(x_RH: Tensor, *_: Any) -> Tensor:
    """Empty y."""
    return torch.empty_like(x_RH)


def outputs_of_backward(
    dy_RH: Tensor, seed: Tensor, dropout: float, bias: bool
) -> tuple[Tensor, Tensor]:
    """Empty dx and dbias, the latter of no numbers unless there is a bias."""
    return torch.empty_like(dy_RH), dy_RH.new_empty(dy_RH.shape[-1:] if bias else 0)


drop_add = define(
    "drop_add(Tensor x, Tensor? bias, Tensor residual, Tensor seed, float dropout) -> Tensor",
    cpu=None,
    fake=output_of_drop_add,
)
drop_add_backward = define(
    "drop_add_backward(Tensor dy, Tensor seed, float dropout, bool bias) -> (Tensor, Tensor)",
    cpu=None,
    fake=outputs_of_backward,
)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """The seed."""
    _, bias, _, seed, ctx.dropout = inputs
    ctx.save_for_backward(seed)
    ctx.bias = bias is not None


def backward(ctx: Any, dy_RH: Tensor) -> tuple[Any, ...]:
    """Gradients of x, bias and residual."""
    (seed,) = ctx.saved_tensors
    dx, dbias = drop_add_backward(dy_RH.contiguous(), seed, ctx.dropout, ctx.bias)
    return dx, dbias if ctx.bias else None, dy_RH, None, None


differentiate("drop_add", backward, keep, once="residual")
