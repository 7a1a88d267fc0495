"""Activations against their formulas and known values."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.kernels.activation import (
    geglu,
    geglu_reference,
    geglu_tanh,
    geglu_tanh_reference,
    gelu,
    gelu_reference,
    gelu_tanh,
    gelu_tanh_reference,
    swiglu,
    swiglu_reference,
)

GATED = [
    (swiglu, swiglu_reference),
    (geglu, geglu_reference),
    (geglu_tanh, geglu_tanh_reference),
]
PAIRS = [*GATED, (gelu, gelu_reference), (gelu_tanh, gelu_tanh_reference)]
Function = Callable[[Tensor], Tensor]


@pytest.mark.parametrize(("function", "reference"), PAIRS)
@pytest.mark.parametrize("shape", [(2,), (3, 7, 10), (0, 4)])
def test_function_is_its_formula(
    function: Function, reference: Function, shape: tuple[int, ...]
) -> None:
    x = 4 * torch.randn(shape, generator=torch.Generator().manual_seed(2))
    assert_close(function(x), reference(x), rtol=1e-5, atol=1e-6)
    rough = x.bfloat16()
    assert_close(function(rough), reference(rough), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("function", [pair[0] for pair in PAIRS])
def test_gradient(function: Function) -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, [x])


def test_known_values() -> None:
    """silu(2) = 2 / (1 + e^-2); gelu(1) = normal distribution function of 1; its approximation."""
    assert_close(swiglu_reference(torch.tensor([2.0, 3.0])), torch.tensor([5.284782]))
    assert_close(geglu_reference(torch.tensor([1.0, 3.0])), torch.tensor([2.5240342]))
    assert_close(gelu_reference(torch.tensor(1.0)), torch.tensor(0.8413447))
    assert_close(gelu_tanh_reference(torch.tensor(1.0)), torch.tensor(0.8411920))


@pytest.mark.parametrize("function", [pair[0] for pair in GATED])
def test_odd_columns_are_refused(function: Function) -> None:
    with pytest.raises(ValueError, match=r"^x must have gate and value columns, got \[2, 3\]$"):
        function(torch.ones(2, 3))
