"""Norms, activations and the residual stream on CUDA: see `norm_ops`, `activation_ops`,
`residual_ops`. R rows, H or F columns.

Sums over rows are taken of blocks of rows that depend on the shape alone, then over the blocks in
order: two runs give the same bits.
"""

import math

import torch
from torch import Tensor

from megatron_jobs.kernels import activation_ops, dropout_ops, norm_ops, residual_ops
from megatron_jobs.kernels.cuda import at, like, numbers, scratch
from megatron_jobs.kernels.native import cuda
from megatron_jobs.kernels.norm_ops import Four, Three
from megatron_jobs.kernels.ops import run_on_cuda

FP32 = (torch.float32,)


def norm(
    x_RH: Tensor,
    residual_RH: Tensor | None,
    weight_H: Tensor,
    bias_H: Tensor | None,
    eps: float,
    offset: bool,
    centred: bool,
) -> Four:
    """The operator `norm`."""
    row = like(x_RH, shape=x_RH.shape[-1:])
    inputs = (
        at("x", x_RH),
        at("residual", residual_RH, **like(x_RH)),
        at("weight", weight_H, **row),
        at("bias", bias_H, **row),
    )
    outputs = norm_ops.outputs_of_norm(x_RH, residual_RH, weight_H, bias_H, eps, offset, centred)
    y, total, mean, scale = (tensor.data_ptr() for tensor in outputs)
    cuda().norm_forward(
        *inputs,
        y,
        total if residual_RH is not None else 0,
        mean if centred else 0,
        scale,
        rows=outputs[-1].numel(),
        columns=x_RH.size(-1),
        eps=eps,
        offset=offset,
        **numbers(x_RH),
    )
    return outputs


def norm_backward(
    dy_RH: Tensor,
    x_RH: Tensor,
    weight_H: Tensor,
    mean_R: Tensor,
    scale_R: Tensor,
    dsum_RH: Tensor | None,
    offset: bool,
    bias: bool,
) -> Three:
    """The operator `norm_backward`. LayerNorm (`mean` is not empty) without a bias has its sum."""
    columns, centred = x_RH.size(-1), mean_R.numel() > 0
    inputs = (
        at("dy", dy_RH, **like(x_RH)),
        at("x", x_RH),
        at("weight", weight_H, **like(x_RH, shape=x_RH.shape[-1:])),
        at("mean", mean_R, dtypes=FP32, shape=x_RH.shape[:-1]) if centred else 0,
        at("scale", scale_R, dtypes=FP32, shape=x_RH.shape[:-1]),
        at("dsum", dsum_RH, **like(x_RH)),
    )
    arguments = dy_RH, x_RH, weight_H, mean_R, scale_R, dsum_RH, offset, bias
    dx, dweight, dbias = norm_ops.outputs_of_backward(*arguments)
    summed = dbias if bias or not centred else torch.empty_like(dweight)
    partial = scratch(x_RH, cuda().norm_scratch(columns, centred))
    cuda().norm_backward(
        *inputs,
        dx.data_ptr(),
        dweight.data_ptr(),
        summed.data_ptr() if centred else 0,
        partial.data_ptr(),
        rows=scale_R.numel(),
        columns=columns,
        offset=offset,
        **numbers(x_RH),
    )
    return dx, dweight, dbias.zero_() if bias and not centred else dbias


def activation(x: Tensor, bias: Tensor | None, function: int, gated: bool) -> Tensor:
    """The operator `activation`."""
    x_at = at("x", x)
    bias_at = at("bias", bias, **like(x, shape=x.shape[-1:]))
    y = activation_ops.output_of_activation(x, bias, function, gated)
    rule = rows_of(y) | {"function": function, "gated": gated}
    cuda().activation_forward(x_at, bias_at, y.data_ptr(), **rule)
    return y


def activation_backward(
    dy: Tensor, x: Tensor, bias: Tensor | None, function: int, gated: bool
) -> tuple[Tensor, Tensor]:
    """The operator `activation_backward`."""
    width = x.size(-1) // (2 if gated else 1)
    inputs = (
        at("dy", dy, **like(x, shape=(*x.shape[:-1], width))),
        at("x", x),
        at("bias", bias, **like(x, shape=x.shape[-1:])),
    )
    dx, dbias = activation_ops.outputs_of_backward(dy, x, bias, function, gated)
    partial = scratch(x, 0 if bias is None else cuda().activation_scratch(width, gated))
    outputs = dx.data_ptr(), 0 if bias is None else dbias.data_ptr(), partial.data_ptr()
    rule = rows_of(dy) | {"function": function, "gated": gated}
    cuda().activation_backward(*inputs, *outputs, **rule)
    return dx, dbias


def add_residual(x_RH: Tensor, bias_H: Tensor, residual_RH: Tensor) -> Tensor:
    """The operator `add_residual`."""
    return drop_add(x_RH, bias_H, residual_RH, None, 0.0)


def bias_gradient(dy_RH: Tensor) -> Tensor:
    """The operator `bias_gradient`."""
    dbias = residual_ops.output_of_gradient(dy_RH)
    partial = scratch(dy_RH, cuda().residual_scratch(dy_RH.size(-1)))
    outputs = 0, dbias.data_ptr(), partial.data_ptr(), 0
    cuda().residual_backward(at("dy", dy_RH), *outputs, dropout=0.0, **rows_of(dy_RH))
    return dbias


def drop_add(
    x_RH: Tensor,
    bias_H: Tensor | None,
    residual_RH: Tensor,
    seed: Tensor | None,
    dropout: float,
) -> Tensor:
    """The operator `drop_add`; nothing is dropped without a seed."""
    inputs = (
        at("x", x_RH),
        at("bias", bias_H, **like(x_RH, shape=x_RH.shape[-1:])),
        at("residual", residual_RH, **like(x_RH)),
    )
    y = dropout_ops.output_of_drop_add(x_RH)
    drawn = at("seed", seed, dtypes=(torch.int64,), shape=(1,))
    cuda().residual_forward(*inputs, y.data_ptr(), drawn, dropout=dropout, **rows_of(x_RH))
    return y


def drop_add_backward(
    dy_RH: Tensor, seed: Tensor, dropout: float, bias: bool
) -> tuple[Tensor, Tensor]:
    """The operator `drop_add_backward`."""
    dx, dbias = dropout_ops.outputs_of_backward(dy_RH, seed, dropout, bias)
    partial = scratch(dy_RH, cuda().residual_scratch(dy_RH.size(-1)) if bias else 0)
    outputs = dx.data_ptr(), dbias.data_ptr() if bias else 0, partial.data_ptr()
    drawn = at("seed", seed, dtypes=(torch.int64,), shape=(1,))
    cuda().residual_backward(at("dy", dy_RH), *outputs, drawn, dropout=dropout, **rows_of(dy_RH))
    return dx, dbias


def rows_of(y: Tensor) -> dict[str, int]:
    """Sizes, dtype and stream, as the extension takes them."""
    return {"rows": math.prod(y.shape[:-1]), "columns": y.size(-1)} | numbers(y)


run_on_cuda("norm", norm)
run_on_cuda("norm_backward", norm_backward)
run_on_cuda("activation", activation)
run_on_cuda("activation_backward", activation_backward)
run_on_cuda("add_residual", add_residual)
run_on_cuda("bias_gradient", bias_gradient)
run_on_cuda("drop_add", drop_add)
run_on_cuda("drop_add_backward", drop_add_backward)
