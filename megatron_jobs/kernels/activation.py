"""Activations between the two matrices of a feed-forward block. R rows, F columns, G = 2 x F."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def swiglu(x_RG: Tensor) -> Tensor:
    """SiLU of the first half of the columns times the second half.

    Args:
        x_RG: [..., 2 x F]; gate columns, then value columns.
    Returns: [..., F], the dtype of x.
    Raises: ValueError when the number of columns is odd.
    Source: Shazeer 2020, eq. 5 without biases, arXiv:2002.05202.
    """
    gate_RF, value_RF = halves(x_RG)
    return functional.silu(gate_RF) * value_RF


def swiglu_reference(x_RG: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    gate_RF, value_RF = x_RG.float().chunk(2, dim=-1)
    return (gate_RF / (1 + torch.exp(-gate_RF)) * value_RF).to(x_RG.dtype)


def geglu(x_RG: Tensor) -> Tensor:
    """`gelu` of the first half of the columns times the second half.

    Args:
        x_RG: [..., 2 x F]; gate columns, then value columns.
    Returns: [..., F], the dtype of x.
    Raises: ValueError when the number of columns is odd.
    Source: Shazeer 2020, eq. 4 without biases, arXiv:2002.05202.
    """
    gate_RF, value_RF = halves(x_RG)
    return gelu(gate_RF) * value_RF


def geglu_reference(x_RG: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    gate_RF, value_RF = x_RG.float().chunk(2, dim=-1)
    return (gelu_reference(gate_RF) * value_RF).to(x_RG.dtype)


def geglu_tanh(x_RG: Tensor) -> Tensor:
    """`geglu` by the tanh approximation, which Gemma was trained with.

    Args:
        x_RG: [..., 2 x F]; gate columns, then value columns.
    Returns: [..., F], the dtype of x.
    Raises: ValueError when the number of columns is odd.
    """
    gate_RF, value_RF = halves(x_RG)
    return gelu_tanh(gate_RF) * value_RF


def geglu_tanh_reference(x_RG: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    gate_RF, value_RF = x_RG.float().chunk(2, dim=-1)
    return (gelu_tanh_reference(gate_RF) * value_RF).to(x_RG.dtype)


def halves(x_RG: Tensor) -> tuple[Tensor, Tensor]:
    """(gate, value) [..., F]; ValueError when the number of columns is odd."""
    if x_RG.shape[-1] % 2:
        raise ValueError(f"x must have gate and value columns, got {list(x_RG.shape)}")
    gate_RF, value_RF = x_RG.chunk(2, dim=-1)
    return gate_RF, value_RF


def gelu(x_RF: Tensor) -> Tensor:
    """x times the standard normal distribution function of x.

    Args:
        x_RF: any shape.
    Returns: the shape and dtype of x.
    Source: Hendrycks and Gimpel 2016, section 2, arXiv:1606.08415.
    """
    return functional.gelu(x_RF)


def gelu_reference(x_RF: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    return (x_RF.float() * 0.5 * (1 + torch.erf(x_RF.float() / math.sqrt(2)))).to(x_RF.dtype)


def gelu_tanh(x_RF: Tensor) -> Tensor:
    """The tanh approximation of `gelu`, which GPT-2 was trained with.

    Args:
        x_RF: any shape.
    Returns: the shape and dtype of x.
    Source: Hendrycks and Gimpel 2016, section 2, second formula, arXiv:1606.08415.
    """
    return functional.gelu(x_RF, approximate="tanh")


def gelu_tanh_reference(x_RF: Tensor) -> Tensor:
    """The formula in fp32, word for word."""
    x = x_RF.float()
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))
    return (0.5 * x * (1 + torch.tanh(inner))).to(x_RF.dtype)
