"""Normalisation. Axis letters: R rows (any leading shape), H columns."""

import torch
from torch import Tensor
from torch.nn import functional


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
    if offset:
        x = x_RH.to(wide(x_RH))
        weight, bias = 1 + weight_H.to(x.dtype), bias_H.to(x.dtype)
        return functional.layer_norm(x, weight.shape, weight, bias, eps).to(x_RH.dtype)
    return functional.layer_norm(x_RH, weight_H.shape, weight_H, bias_H, eps)


def layer_norm_reference(x_RH: Tensor, weight_H: Tensor, bias_H: Tensor, eps: float) -> Tensor:
    """The formula, word for word; the variance is the mean of squares around the mean."""
    centred_RH = x_RH.float() - x_RH.float().mean(-1, keepdim=True)
    variance_R1 = centred_RH.pow(2).mean(-1, keepdim=True)
    return (centred_RH * torch.rsqrt(variance_R1 + eps)).to(x_RH.dtype) * weight_H + bias_H


def wide(x: Tensor) -> torch.dtype:
    """fp32, or the dtype of x where it is wider."""
    return torch.promote_types(x.dtype, torch.float32)


def check_columns(name: str, value_H: Tensor, x_RH: Tensor) -> None:
    """ValueError unless `value_H` has one number for each column of `x_RH`."""
    if value_H.shape != x_RH.shape[-1:]:
        raise ValueError(f"{name} must be [{x_RH.shape[-1]}], got {list(value_H.shape)}")
