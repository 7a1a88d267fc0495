"""Operators of fused activations. Axis letters: R rows (any leading shape), F columns, G = 2 x F.

    activation(x, bias?, function, gated) -> y
    activation_backward(dy, x, bias?, function, gated) -> (dx, dbias)

The gradient of the bias is summed over blocks of rows in order: for any number of threads the
result is the same bit for bit.
"""

import math
from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels.native import CODES, checked, cpu
from megatron_jobs.kernels.ops import define, differentiate

FUNCTIONS = ("silu", "gelu", "gelu_tanh")
"""A function is passed as its place in here."""


def output_of_activation(x: Tensor, bias: Tensor | None, function: int, gated: bool) -> Tensor:
    """Empty y."""
    return x.new_empty((*x.shape[:-1], x.size(-1) // 2)) if gated else torch.empty_like(x)


def activation_on_cpu(x: Tensor, bias: Tensor | None, function: int, gated: bool) -> Tensor:
    """The operator `activation`."""
    x_at = checked("x", x)
    check_halves(x, gated)
    bias_at = address_of_bias(bias, x)
    y = output_of_activation(x, bias, function, gated)
    cpu().activation_forward(x_at, bias_at, y.data_ptr(), **rule(y, function, gated))
    return y


def outputs_of_backward(
    dy: Tensor, x: Tensor, bias: Tensor | None, function: int, gated: bool
) -> tuple[Tensor, Tensor]:
    """Empty dx and dbias, the latter of no numbers unless there is a bias."""
    return torch.empty_like(x), x.new_empty(0 if bias is None else bias.shape)


def activation_backward_on_cpu(
    dy: Tensor, x: Tensor, bias: Tensor | None, function: int, gated: bool
) -> tuple[Tensor, Tensor]:
    """The operator `activation_backward`."""
    check_halves(x, gated)
    width = x.size(-1) // (2 if gated else 1)
    inputs = (
        checked("dy", dy, dtypes=(x.dtype,), shape=(*x.shape[:-1], width)),
        checked("x", x),
        address_of_bias(bias, x),
    )
    dx, dbias = outputs_of_backward(dy, x, bias, function, gated)
    numbers = rule(dy, function, gated)
    cpu().activation_backward(*inputs, dx.data_ptr(), dbias.data_ptr(), **numbers)
    return dx, dbias


def check_halves(x: Tensor, gated: bool) -> None:
    """ValueError unless gate and value have as many columns, where there are two."""
    if gated and x.size(-1) % 2:
        raise ValueError(f"x must have gate and value columns, got {list(x.shape)}")


def address_of_bias(bias: Tensor | None, x: Tensor) -> int:
    """0 for None; ValueError unless it is a row of x."""
    return 0 if bias is None else checked("bias", bias, dtypes=(x.dtype,), shape=x.shape[-1:])


def rule(y: Tensor, function: int, gated: bool) -> dict[str, Any]:
    """Sizes and kinds, as the extension takes them."""
    return {
        "rows": math.prod(y.shape[:-1]),
        "columns": y.size(-1),
        "dtype": CODES[y.dtype],
        "function": function,
        "gated": gated,
        "threads": torch.get_num_threads(),
    }


activation = define(
    "activation(Tensor x, Tensor? bias, int function, bool gated) -> Tensor",
    cpu=activation_on_cpu,
    fake=output_of_activation,
)
activation_backward = define(
    "activation_backward(Tensor dy, Tensor x, Tensor? bias, int function, bool gated)"
    " -> (Tensor, Tensor)",
    cpu=activation_backward_on_cpu,
    fake=outputs_of_backward,
)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """The inputs; the output is worth no memory."""
    x, bias, ctx.function, ctx.gated = inputs
    ctx.save_for_backward(x, bias)


def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    """Gradients of x and bias."""
    x, bias = ctx.saved_tensors
    dx, dbias = activation_backward(dy.contiguous(), x, bias, ctx.function, ctx.gated)
    return dx, None if bias is None else dbias, None, None


differentiate("activation", backward, keep, once="activation")
