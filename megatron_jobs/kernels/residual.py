"""The residual stream: what a block gives is added to it. R rows (any leading shape), H columns."""

import torch
from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.dropout_ops import drop_add
from megatron_jobs.kernels.residual_ops import add_residual

SMALL = 1 << 15
SMALL_ON_CPU = 1 << 21
"""Numbers below which plain torch is faster; the first, a guess, where there is CUDA or dropout.
Forward and backward, fp32, ours against torch's, on one core 0.27 ms and 0.22 (2^19), 1.6 and 2.9
(2^21); on two 0.55 and 0.45 (2^20), 0.94 and 1.07 (2^21); bf16 on two is even at 2^21."""


def bias_dropout_add(
    x_RH: Tensor, bias_H: Tensor | None, residual_RH: Tensor, *, dropout: float = 0.0
) -> Tensor:
    """residual + dropout(x + bias).

    Which numbers are dropped follows from torch's generator, so that a job that goes on drops what
    it would have dropped. On the CPU its numbers take most of the time, and dropout is left to
    torch; on CUDA it gives a seed, from which the kernel draws (16 bits a number). Without a bias
    and dropout one addition is all there is.

    Args:
        x_RH: [..., H].
        bias_H: [H], or None.
        residual_RH: [..., H]; x is brought to its dtype first.
        dropout: share of the numbers that are dropped; the others make up for them.
    Returns: [..., H], the dtype of residual.
    Raises: ValueError when bias is not [H], residual not the shape of x, or dropout no share.
    """
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be 0 to 1, got {dropout}")
    if x_RH.dim() == 0:
        raise ValueError("x must have columns, got a single number")
    if residual_RH.shape != x_RH.shape:
        raise ValueError(f"residual must be {list(x_RH.shape)}, got {list(residual_RH.shape)}")
    if bias_H is not None and bias_H.shape != x_RH.shape[-1:]:
        raise ValueError(f"bias must be {list(x_RH.shape[-1:])}, got {list(bias_H.shape)}")
    if bias_H is not None or (dropout > 0 and _draws(x_RH)):
        fused = _fused(x_RH, bias_H, residual_RH, dropout)
        if fused is not None:
            return fused
    x_RH = x_RH.to(residual_RH.dtype)
    if bias_H is not None:
        x_RH = x_RH + bias_H.to(x_RH.dtype)
    return residual_RH + functional.dropout(x_RH, dropout)


def bias_add_reference(x_RH: Tensor, bias_H: Tensor, residual_RH: Tensor) -> Tensor:
    """The formula in fp64, rounded once."""
    return ((x_RH.double() + bias_H.double()) + residual_RH.double()).to(residual_RH.dtype)


def _fused(
    x_RH: Tensor, bias_H: Tensor | None, residual_RH: Tensor, dropout: float
) -> Tensor | None:
    """What the operators give; None where they do not take these tensors."""
    unknown = None
    if x_RH.size(-1) == 0:
        unknown = "it does not know rows of no columns"
    elif dropout >= 1:
        unknown = "dropout of all numbers"
    elif dropout > 0 and not _draws(x_RH):
        unknown = "dropout, whose random numbers are torch's"
    least = SMALL if x_RH.is_cuda or dropout > 0 else SMALL_ON_CPU
    small = x_RH.numel() < least
    if form_of("residual", x_RH, bias_H, residual_RH, small=small, unknown=unknown) == "reference":
        return None
    bias_H = None if bias_H is None else bias_H.contiguous()
    out: Tensor
    if dropout > 0:
        seed = torch.randint(1 << 62, (1,), device=x_RH.device)
        out = drop_add(x_RH.contiguous(), bias_H, residual_RH.contiguous(), seed, dropout)
    else:
        out = add_residual(x_RH.contiguous(), bias_H, residual_RH.contiguous())
    return out


def _draws(x: Tensor) -> bool:
    """Whether random numbers are the kernel's there."""
    return x.is_cuda
