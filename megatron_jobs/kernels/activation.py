"""Activations between the two matrices of a feed-forward block. R rows, F columns, G = 2 x F."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels.activation_ops import FUNCTIONS, activation
from megatron_jobs.kernels.dispatch import form_of

SMALL = 1 << 17
"""Numbers of x below which plain torch is faster: a call and its gradient cost some 40 us more of
Python. Forward and backward of SwiGLU, fp32, on one core of a busy machine: 0.35 ms against 0.27
for 2^16 numbers, 0.43 against 0.48 for 2^18."""


def swiglu(x_RG: Tensor, bias_G: Tensor | None = None) -> Tensor:
    """SiLU of the first half of the columns times the second half.

    Args:
        x_RG: [..., 2 x F]; gate columns, then value columns.
        bias_G: [2 x F], added to x first; None: nothing is.
    Returns: [..., F], the dtype of x.
    Raises: ValueError when the number of columns is odd, or bias not a row of x.
    Source: Shazeer 2020, eq. 5, arXiv:2002.05202.
    """
    return _gated("silu", x_RG, bias_G)


def swiglu_reference(x_RG: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    gate_RF, value_RF = x_RG.float().chunk(2, dim=-1)
    return (gate_RF / (1 + torch.exp(-gate_RF)) * value_RF).to(x_RG.dtype)


def geglu(x_RG: Tensor, bias_G: Tensor | None = None) -> Tensor:
    """`gelu` of the first half of the columns times the second half.

    Args:
        x_RG: [..., 2 x F]; gate columns, then value columns.
        bias_G: [2 x F], added to x first; None: nothing is.
    Returns: [..., F], the dtype of x.
    Raises: ValueError when the number of columns is odd, or bias not a row of x.
    Source: Shazeer 2020, eq. 4, arXiv:2002.05202.
    """
    return _gated("gelu", x_RG, bias_G)


def geglu_reference(x_RG: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    gate_RF, value_RF = x_RG.float().chunk(2, dim=-1)
    return (gelu_reference(gate_RF) * value_RF).to(x_RG.dtype)


def geglu_tanh(x_RG: Tensor, bias_G: Tensor | None = None) -> Tensor:
    """`geglu` by the tanh approximation, which Gemma was trained with.

    Args:
        x_RG: [..., 2 x F]; gate columns, then value columns.
        bias_G: [2 x F], added to x first; None: nothing is.
    Returns: [..., F], the dtype of x.
    Raises: ValueError when the number of columns is odd, or bias not a row of x.
    """
    return _gated("gelu_tanh", x_RG, bias_G)


def geglu_tanh_reference(x_RG: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    gate_RF, value_RF = x_RG.float().chunk(2, dim=-1)
    return (gelu_tanh_reference(gate_RF) * value_RF).to(x_RG.dtype)


def gelu(x_RF: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """x times the standard normal distribution function of x.

    Args:
        x_RF: [..., F].
        bias_F: [F], added to x first; None: nothing is.
    Returns: the shape and dtype of x.
    Raises: ValueError when bias is not a row of x.
    Source: Hendrycks and Gimpel 2016, section 2, arXiv:1606.08415.
    """
    return _plain_or_fused("gelu", x_RF, bias_F)


def gelu_reference(x_RF: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    return (x_RF.float() * 0.5 * (1 + torch.erf(x_RF.float() / math.sqrt(2)))).to(x_RF.dtype)


def gelu_tanh(x_RF: Tensor, bias_F: Tensor | None = None) -> Tensor:
    """The tanh approximation of `gelu`, which GPT-2 was trained with.

    Args:
        x_RF: [..., F].
        bias_F: [F], added to x first; None: nothing is.
    Returns: the shape and dtype of x.
    Raises: ValueError when bias is not a row of x.
    Source: Hendrycks and Gimpel 2016, section 2, second formula, arXiv:1606.08415.
    """
    return _plain_or_fused("gelu_tanh", x_RF, bias_F)


def gelu_tanh_reference(x_RF: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    x = x_RF.float()
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))
    return (0.5 * x * (1 + torch.tanh(inner))).to(x_RF.dtype)


def _tanh_form(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": _tanh_form,
}


def _gated(function: str, x_RG: Tensor, bias_G: Tensor | None) -> Tensor:
    if x_RG.dim() == 0 or x_RG.size(-1) % 2:
        raise ValueError(f"x must have gate and value columns, got {list(x_RG.shape)}")
    return _plain_or_fused(function, x_RG, bias_G, gated=True)


def _plain_or_fused(
    function: str, x: Tensor, bias: Tensor | None, *, gated: bool = False
) -> Tensor:
    if bias is not None and bias.shape != x.shape[-1:]:
        raise ValueError(f"bias must be {list(x.shape[-1:])}, got {list(bias.shape)}")
    if _is_fused(x, bias):
        bias = None if bias is None else bias.contiguous()
        fused: Tensor = activation(x.contiguous(), bias, FUNCTIONS.index(function), gated)
        return fused
    x = x if bias is None else x + bias
    if not gated:
        return PLAIN[function](x)
    gate_RF, value_RF = x.chunk(2, dim=-1)
    return PLAIN[function](gate_RF) * value_RF


def _is_fused(x: Tensor, bias: Tensor | None) -> bool:
    """Whether the operator `activation` takes these tensors."""
    unknown = None if x.dim() and x.size(-1) else "it does not know rows of no columns"
    small = x.numel() < SMALL
    return form_of("activation", x, bias, small=small, unknown=unknown) != "reference"
