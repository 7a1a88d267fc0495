"""Operators of fused norms. Axis letters: R rows (any leading shape), H columns.

    norm(x, residual?, weight, bias?, eps, offset, centred) -> (y, sum, mean, scale)
    norm_backward(dy, x, weight, mean, scale, dsum?, offset, centred, bias) -> (dx, dweight, dbias)

`sum` is x + residual, what is normalised; empty without a residual. `mean` (empty unless centred)
and `scale` are fp32 [R], what the gradient needs of each row. Sums of weight gradients are taken
over blocks of rows in order: for any number of threads the result is the same bit for bit.
"""

from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels.native import CODES, checked, cpu
from megatron_jobs.kernels.ops import define, differentiate

Four = tuple[Tensor, Tensor, Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


def outputs_of_norm(
    x_RH: Tensor,
    residual_RH: Tensor | None,
    weight_H: Tensor,
    bias_H: Tensor | None,
    eps: float,
    offset: bool,
    centred: bool,
) -> Four:
    """Empty y, sum, mean and scale."""
    rows = x_RH.shape[:-1]
    total = x_RH.new_empty(0 if residual_RH is None else x_RH.shape)
    mean = x_RH.new_empty(rows if centred else (0,), dtype=torch.float32)
    return torch.empty_like(x_RH), total, mean, x_RH.new_empty(rows, dtype=torch.float32)


def norm_on_cpu(
    x_RH: Tensor,
    residual_RH: Tensor | None,
    weight_H: Tensor,
    bias_H: Tensor | None,
    eps: float,
    offset: bool,
    centred: bool,
) -> Four:
    """The operator `norm`."""
    columns = x_RH.shape[-1:]
    like: dict[str, Any] = {"dtypes": (x_RH.dtype,)}
    inputs = (
        checked("x", x_RH),
        given("residual", residual_RH, shape=x_RH.shape, **like),
        checked("weight", weight_H, shape=columns, **like),
        given("bias", bias_H, shape=columns, **like),
    )
    outputs = outputs_of_norm(x_RH, residual_RH, weight_H, bias_H, eps, offset, centred)
    cpu().norm_forward(
        *inputs,
        *(tensor.data_ptr() for tensor in outputs),
        rows=outputs[-1].numel(),
        columns=columns[0],
        dtype=CODES[x_RH.dtype],
        eps=eps,
        offset=offset,
        threads=torch.get_num_threads(),
    )
    return outputs


def outputs_of_backward(
    dy_RH: Tensor,
    x_RH: Tensor,
    weight_H: Tensor,
    mean_R: Tensor,
    scale_R: Tensor,
    dsum_RH: Tensor | None,
    offset: bool,
    bias: bool,
) -> Three:
    """Empty dx, dweight and dbias, the last of no numbers unless there is a bias."""
    dbias = weight_H.new_empty(weight_H.shape if bias else 0)
    return torch.empty_like(x_RH), torch.empty_like(weight_H), dbias


def norm_backward_on_cpu(
    dy_RH: Tensor,
    x_RH: Tensor,
    weight_H: Tensor,
    mean_R: Tensor,
    scale_R: Tensor,
    dsum_RH: Tensor | None,
    offset: bool,
    bias: bool,
) -> Three:
    """The operator `norm_backward`."""
    whole: dict[str, Any] = {"dtypes": (x_RH.dtype,), "shape": x_RH.shape}
    rows: dict[str, Any] = {"dtypes": (torch.float32,)}
    inputs = (
        checked("dy", dy_RH, **whole),
        checked("x", x_RH),
        checked("weight", weight_H, dtypes=(x_RH.dtype,), shape=x_RH.shape[-1:]),
        checked("mean", mean_R, shape=x_RH.shape[:-1] if mean_R.numel() else (0,), **rows),
        checked("scale", scale_R, shape=x_RH.shape[:-1], **rows),
        given("dsum", dsum_RH, **whole),
    )
    outputs = outputs_of_backward(dy_RH, x_RH, weight_H, mean_R, scale_R, dsum_RH, offset, bias)
    cpu().norm_backward(
        *inputs,
        *(tensor.data_ptr() for tensor in outputs),
        rows=scale_R.numel(),
        columns=x_RH.size(-1),
        dtype=CODES[x_RH.dtype],
        offset=offset,
        threads=torch.get_num_threads(),
    )
    return outputs


def given(name: str, tensor: Tensor | None, **rules: Any) -> int:
    """As `checked`; 0 for None."""
    return 0 if tensor is None else checked(name, tensor, **rules)


norm = define(
    "norm(Tensor x, Tensor? residual, Tensor weight, Tensor? bias, float eps, bool offset,"
    " bool centred) -> (Tensor, Tensor, Tensor, Tensor)",
    cpu=norm_on_cpu,
    fake=outputs_of_norm,
)
norm_backward = define(
    "norm_backward(Tensor dy, Tensor x, Tensor weight, Tensor mean, Tensor scale, Tensor? dsum,"
    " bool offset, bool bias) -> (Tensor, Tensor, Tensor)",
    cpu=norm_backward_on_cpu,
    fake=outputs_of_backward,
)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Four) -> None:
    """What was normalised, the weight, and the numbers of each row."""
    x_RH, residual_RH, weight_H, bias_H, _, ctx.offset, _ = inputs
    _, total, mean, scale = output
    ctx.save_for_backward(x_RH if residual_RH is None else total, weight_H, mean, scale)
    ctx.has = residual_RH is not None, bias_H is not None
    ctx.set_materialize_grads(False)


def backward(context: Any, dy: Tensor | None, dsum: Tensor | None, *_: None) -> tuple[Any, ...]:
    """Gradients of x, residual, weight and bias; those of mean and scale are not asked for."""
    x_RH, weight_H, mean, scale = context.saved_tensors
    residual, bias = context.has
    dy = torch.zeros_like(x_RH) if dy is None else dy.contiguous()
    dsum = None if dsum is None or not residual else dsum.contiguous()
    dx, dweight, dbias = norm_backward(dy, x_RH, weight_H, mean, scale, dsum, context.offset, bias)
    return dx, dx if residual else None, dweight, dbias if bias else None, None, None, None


differentiate("norm", backward, keep, once="norm")
