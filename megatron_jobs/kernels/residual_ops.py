"""The operators of the residual stream. R rows (any leading shape), H columns.

    add_residual(x, bias, residual) -> y
    bias_gradient(dy) -> dbias

The gradient of the bias is summed over blocks of rows in order: for any number of threads the
result is the same bit for bit.
"""

import math
from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels.native import CODES, checked, cpu
from megatron_jobs.kernels.ops import define, differentiate


def output_of_add(x_RH: Tensor, bias_H: Tensor, residual_RH: Tensor) -> Tensor:
    """Empty y."""
    return torch.empty_like(x_RH)


def add_residual_on_cpu(x_RH: Tensor, bias_H: Tensor, residual_RH: Tensor) -> Tensor:
    """The operator `add_residual`."""
    like: dict[str, Any] = {"dtypes": (x_RH.dtype,)}
    inputs = (
        checked("x", x_RH),
        checked("bias", bias_H, shape=x_RH.shape[-1:], **like),
        checked("residual", residual_RH, shape=x_RH.shape, **like),
    )
    y = output_of_add(x_RH, bias_H, residual_RH)
    cpu().add_residual(*inputs, y.data_ptr(), **sizes(x_RH))
    return y


def output_of_gradient(dy_RH: Tensor) -> Tensor:
    """Empty dbias."""
    return dy_RH.new_empty(dy_RH.shape[-1:])


def bias_gradient_on_cpu(dy_RH: Tensor) -> Tensor:
    """The operator `bias_gradient`."""
    dbias = output_of_gradient(dy_RH)
    cpu().bias_gradient(checked("dy", dy_RH), dbias.data_ptr(), **sizes(dy_RH))
    return dbias


def sizes(x_RH: Tensor) -> dict[str, int]:
    """As the extension takes them."""
    return {
        "rows": math.prod(x_RH.shape[:-1]),
        "columns": x_RH.size(-1),
        "dtype": CODES[x_RH.dtype],
        "threads": torch.get_num_threads(),
    }


add_residual = define(
    "add_residual(Tensor x, Tensor bias, Tensor residual) -> Tensor",
    cpu=add_residual_on_cpu,
    fake=output_of_add,
)
bias_gradient = define(
    "bias_gradient(Tensor dy) -> Tensor", cpu=bias_gradient_on_cpu, fake=output_of_gradient
)


def backward(ctx: Any, dy_RH: Tensor) -> tuple[Any, ...]:
    """Gradients of x, bias and residual."""
    dbias_H = bias_gradient(dy_RH.contiguous()) if ctx.needs_input_grad[1] else None
    return dy_RH, dbias_H, dy_RH


differentiate("add_residual", backward)


def keep_shape(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Of the rows."""
    ctx.shape = inputs[0].shape


def spread(ctx: Any, ddbias_H: Tensor) -> Tensor:
    """The gradient of dy: each row counted once."""
    return ddbias_H.expand(ctx.shape)


differentiate("bias_gradient", spread, keep_shape)
