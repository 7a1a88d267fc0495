"""Normalisation. Axis letters: R rows (any leading shape), H columns."""

import torch
from torch import Tensor
from torch.nn import functional


def rms_norm(x_RH: Tensor, weight_H: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Scale each row to unit root-mean-square, then each column by its weight.

    Args:
        x_RH: [..., H]; fp32, bf16 or fp16. Sums are taken in fp32.
        weight_H: [H], the dtype of x.
        eps: added to the mean of squares, inside the root.
    Returns: [..., H], the dtype of x.
    Raises: ValueError when weight is not [H].
    Source: Zhang and Sennrich 2019, eq. 4, arXiv:1910.07467.
    """
    check_columns("weight", weight_H, x_RH)
    return functional.rms_norm(x_RH, weight_H.shape, weight_H, eps)


def rms_norm_reference(x_RH: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """The formula, word for word; what faster forms are tested against."""
    square_R1 = x_RH.float().pow(2).mean(-1, keepdim=True)
    return (x_RH.float() * torch.rsqrt(square_R1 + eps)).to(x_RH.dtype) * weight_H


def layer_norm(x_RH: Tensor, weight_H: Tensor, bias_H: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Bring each row to zero mean and unit variance, then scale and shift each column.

    Args:
        x_RH: [..., H]; fp32, bf16 or fp16. Sums are taken in fp32.
        weight_H: [H], the dtype of x.
        bias_H: [H], the dtype of x.
        eps: added to the variance, inside the root.
    Returns: [..., H], the dtype of x.
    Raises: ValueError when weight or bias is not [H].
    Source: Ba, Kiros and Hinton 2016, eq. 4, arXiv:1607.06450.
    """
    check_columns("weight", weight_H, x_RH)
    check_columns("bias", bias_H, x_RH)
    return functional.layer_norm(x_RH, weight_H.shape, weight_H, bias_H, eps)


def layer_norm_reference(x_RH: Tensor, weight_H: Tensor, bias_H: Tensor, eps: float) -> Tensor:
    """The formula, word for word; the variance is the mean of squares around the mean."""
    centred_RH = x_RH.float() - x_RH.float().mean(-1, keepdim=True)
    variance_R1 = centred_RH.pow(2).mean(-1, keepdim=True)
    return (centred_RH * torch.rsqrt(variance_R1 + eps)).to(x_RH.dtype) * weight_H + bias_H


def check_columns(name: str, value_H: Tensor, x_RH: Tensor) -> None:
    """ValueError unless `value_H` has one number for each column of `x_RH`."""
    if value_H.shape != x_RH.shape[-1:]:
        raise ValueError(f"{name} must be [{x_RH.shape[-1]}], got {list(value_H.shape)}")
