"""The residual stream: what a block gives is added to it. R rows (any leading shape), H columns."""

from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.residual_ops import add_residual

SMALL = 1 << 15
"""Numbers below which plain torch is faster."""


def bias_dropout_add(
    x_RH: Tensor, bias_H: Tensor | None, residual_RH: Tensor, *, dropout: float = 0.0
) -> Tensor:
    """residual + dropout(x + bias).

    Dropout draws from torch's generator, as torch does, so that a job that goes on draws what it
    would have drawn; that takes most of the time, and is left to torch. Without a bias one addition
    is all there is.

    Args:
        x_RH: [..., H].
        bias_H: [H], or None.
        residual_RH: [..., H]; x is brought to its dtype first.
        dropout: share of the numbers that are dropped; the others make up for them.
    Returns: [..., H], the dtype of residual.
    Raises: ValueError when bias is not [H] or residual not the shape of x.
    """
    if residual_RH.shape != x_RH.shape:
        raise ValueError(f"residual must be {list(x_RH.shape)}, got {list(residual_RH.shape)}")
    if bias_H is not None and bias_H.shape != x_RH.shape[-1:]:
        raise ValueError(f"bias must be {list(x_RH.shape[-1:])}, got {list(bias_H.shape)}")
    if bias_H is not None and _is_fused(x_RH, bias_H, residual_RH, dropout):
        fused: Tensor = add_residual(
            x_RH.contiguous(), bias_H.contiguous(), residual_RH.contiguous()
        )
        return fused
    x_RH = x_RH.to(residual_RH.dtype)
    if bias_H is not None:
        x_RH = x_RH + bias_H.to(x_RH.dtype)
    return residual_RH + functional.dropout(x_RH, dropout)


def bias_add_reference(x_RH: Tensor, bias_H: Tensor, residual_RH: Tensor) -> Tensor:
    """The formula in fp64, rounded once."""
    return ((x_RH.double() + bias_H.double()) + residual_RH.double()).to(residual_RH.dtype)


def _is_fused(x_RH: Tensor, bias_H: Tensor, residual_RH: Tensor, dropout: float) -> bool:
    """Whether the operator `add_residual` takes these tensors."""
    unknown = None
    if dropout > 0:
        unknown = "dropout, whose random numbers are torch's"
    elif x_RH.size(-1) == 0:
        unknown = "it does not know rows of no columns"
    small = x_RH.numel() < SMALL
    found = form_of("residual", x_RH, bias_H, residual_RH, small=small, unknown=unknown)
    return found != "reference"
