"""Normalisation. Axis letters: R rows (any leading shape), H columns."""

import torch
from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.norm_ops import norm

SMALL_ROOT_MEAN_SQUARE = 1 << 14
SMALL_CENTRED = 1 << 18
ALONE_ON_CPU = 1 << 22
"""Numbers below which plain torch is faster: a call and its gradient cost 80 us of Python, torch's
own layer norm 20 us. Forward and backward of 2^18 fp32 on one core of a busy machine: 0.95 ms
against 4.0 ms for RMSNorm. LayerNorm torch has fused itself: without a residual, and on the CPU, it
is ahead up to `ALONE_ON_CPU`. Ours against torch's, fp32, on one core 0.37 ms and 0.26 (2^18), 2.65
and 2.73 (2^21); on two 1.60 and 1.25 (2^21), 3.16 and 3.22 (2^22); bf16 on two 2.6 and 2.9."""


def rms_norm(x_RH: Tensor, weight_H: Tensor, *, eps: float = 1e-6, offset: bool = False) -> Tensor:
    """Scale each row to unit root-mean-square, then each column by its weight.

    Args:
        x_RH: [..., H]; fp32, bf16 or fp16. Sums are taken in fp32.
        weight_H: [H], the dtype of x.
        eps: added to the mean of squares, inside the root.
        offset: multiply by 1 + weight, all in fp32, and round once (Gemma).
    Returns: [..., H], the dtype of x.
    Raises: ValueError when weight is not [H].
    Source: Zhang and Sennrich 2019, eq. 4, arXiv:1910.07467.
    """
    check_columns("weight", weight_H, x_RH)
    if is_fused(SMALL_ROOT_MEAN_SQUARE, x_RH, weight_H):
        return fused(x_RH, None, weight_H, None, eps=eps, offset=offset)[0]
    if offset:
        x = x_RH.to(wide(x_RH))
        return functional.rms_norm(x, weight_H.shape, 1 + weight_H.to(x.dtype), eps).to(x_RH.dtype)
    return functional.rms_norm(x_RH, weight_H.shape, weight_H, eps)


def rms_norm_reference(
    x_RH: Tensor, weight_H: Tensor, eps: float, *, offset: bool = False
) -> Tensor:
    """The formula, word for word; what faster forms are tested against."""
    square_R1 = x_RH.float().pow(2).mean(-1, keepdim=True)
    rows_RH = x_RH.float() * torch.rsqrt(square_R1 + eps)
    if offset:
        return (rows_RH * (1 + weight_H.float())).to(x_RH.dtype)
    return rows_RH.to(x_RH.dtype) * weight_H


def rms_norm_of_squares(
    x_RH: Tensor, weight_H: Tensor, square_R1: Tensor, *, eps: float, offset: bool = False
) -> Tensor:
    """`rms_norm` of some columns of rows whose mean square over all columns is known.

    Args:
        x_RH: [..., H], the columns that are here.
        weight_H: [H], theirs.
        square_R1: [..., 1], fp32.
    """
    check_columns("weight", weight_H, x_RH)
    weight = weight_H.to(square_R1.dtype) + int(offset)
    return (x_RH * torch.rsqrt(square_R1 + eps) * weight).to(x_RH.dtype)


def layer_norm(
    x_RH: Tensor, weight_H: Tensor, bias_H: Tensor, *, eps: float = 1e-5, offset: bool = False
) -> Tensor:
    """Bring each row to zero mean and unit variance, then scale and shift each column.

    Args:
        x_RH: [..., H]; fp32, bf16 or fp16. Sums are taken in fp32.
        weight_H: [H], the dtype of x.
        bias_H: [H], the dtype of x.
        eps: added to the variance, inside the root.
        offset: multiply by 1 + weight, all in fp32, and round once.
    Returns: [..., H], the dtype of x.
    Raises: ValueError when weight or bias is not [H].
    Source: Ba, Kiros and Hinton 2016, eq. 4, arXiv:1607.06450.
    """
    check_columns("weight", weight_H, x_RH)
    check_columns("bias", bias_H, x_RH)
    small = SMALL_CENTRED if x_RH.is_cuda else ALONE_ON_CPU
    if is_fused(small, x_RH, weight_H, bias_H):
        return fused(x_RH, None, weight_H, bias_H, eps=eps, offset=offset)[0]
    if offset:
        x = x_RH.to(wide(x_RH))
        weight, bias = 1 + weight_H.to(x.dtype), bias_H.to(x.dtype)
        return functional.layer_norm(x, weight.shape, weight, bias, eps).to(x_RH.dtype)
    return functional.layer_norm(x_RH, weight_H.shape, weight_H, bias_H, eps)


def add_rms_norm(
    x_RH: Tensor,
    residual_RH: Tensor,
    weight_H: Tensor,
    *,
    eps: float = 1e-6,
    offset: bool = False,
) -> tuple[Tensor, Tensor]:
    """(`rms_norm` of the sum of x and residual, their sum), in one pass.

    Args:
        x_RH, residual_RH: [..., H], of one dtype; their sum is rounded to it.
        weight_H, eps, offset: as for `rms_norm`.
    Raises: ValueError when weight is not [H] or residual not the shape of x.
    """
    check_columns("weight", weight_H, x_RH)
    check_residual(residual_RH, x_RH)
    if is_fused(SMALL_ROOT_MEAN_SQUARE, x_RH, residual_RH, weight_H):
        return fused(x_RH, residual_RH, weight_H, None, eps=eps, offset=offset)
    sum_RH = x_RH + residual_RH
    return rms_norm(sum_RH, weight_H, eps=eps, offset=offset), sum_RH


def add_layer_norm(
    x_RH: Tensor,
    residual_RH: Tensor,
    weight_H: Tensor,
    bias_H: Tensor,
    *,
    eps: float = 1e-5,
    offset: bool = False,
) -> tuple[Tensor, Tensor]:
    """(`layer_norm` of the sum of x and residual, their sum), in one pass.

    Args:
        x_RH, residual_RH: [..., H], of one dtype; their sum is rounded to it.
        weight_H, bias_H, eps, offset: as for `layer_norm`.
    Raises: ValueError when weight or bias is not [H] or residual not the shape of x.
    """
    check_columns("weight", weight_H, x_RH)
    check_columns("bias", bias_H, x_RH)
    check_residual(residual_RH, x_RH)
    if is_fused(SMALL_CENTRED, x_RH, residual_RH, weight_H, bias_H):
        return fused(x_RH, residual_RH, weight_H, bias_H, eps=eps, offset=offset)
    sum_RH = x_RH + residual_RH
    return layer_norm(sum_RH, weight_H, bias_H, eps=eps, offset=offset), sum_RH


def layer_norm_reference(x_RH: Tensor, weight_H: Tensor, bias_H: Tensor, eps: float) -> Tensor:
    """The formula, word for word; the variance is the mean of squares around the mean."""
    centred_RH = x_RH.float() - x_RH.float().mean(-1, keepdim=True)
    variance_R1 = centred_RH.pow(2).mean(-1, keepdim=True)
    return (centred_RH * torch.rsqrt(variance_R1 + eps)).to(x_RH.dtype) * weight_H + bias_H


def is_fused(small: int, x_RH: Tensor, *others: Tensor) -> bool:
    """Whether the operator `norm` takes these tensors; `small` numbers are worth it."""
    unknown = "it does not know rows of no columns" if x_RH.size(-1) == 0 else None
    few = x_RH.numel() < small
    return form_of("norm", x_RH, *others, small=few, unknown=unknown) != "reference"


def fused(
    x_RH: Tensor,
    residual_RH: Tensor | None,
    weight_H: Tensor,
    bias_H: Tensor | None,
    *,
    eps: float,
    offset: bool,
) -> tuple[Tensor, Tensor]:
    """(normalised, sum); what lies apart in memory is brought together first."""
    rest = None if residual_RH is None else residual_RH.contiguous()
    bias = None if bias_H is None else bias_H.contiguous()
    out = norm(x_RH.contiguous(), rest, weight_H.contiguous(), bias, eps, offset, bias is not None)
    return out[0], out[1]


def wide(x: Tensor) -> torch.dtype:
    """fp32, or the dtype of x where it is wider."""
    return torch.promote_types(x.dtype, torch.float32)


def check_columns(name: str, value_H: Tensor, x_RH: Tensor) -> None:
    """ValueError unless `value_H` has one number for each column of `x_RH`."""
    if x_RH.dim() == 0:
        raise ValueError("x must have columns, got a single number")
    if value_H.shape != x_RH.shape[-1:]:
        raise ValueError(f"{name} must be [{x_RH.shape[-1]}], got {list(value_H.shape)}")


def check_residual(residual_RH: Tensor, x_RH: Tensor) -> None:
    """ValueError unless both have the same shape."""
    if residual_RH.shape != x_RH.shape:
        raise ValueError(f"residual must be {list(x_RH.shape)}, got {list(residual_RH.shape)}")
