"""Fused kernels, which do not know the transforms of torch.func, leave them to torch and say so."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from megatron_jobs.errors import UserError
from megatron_jobs.kernels.dispatch import FallbackWarning
from tests.fused import chosen
from tests.unit.kernels.test_forward_mode import CALLS, UP, X

NAMES = sorted(CALLS)


def slope(name: str, x: Tensor) -> Tensor:
    """By torch's autograd, through whatever form runs."""
    x = x.clone().requires_grad_()
    CALLS[name][1](x).sum().backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_autograd(name: str) -> None:
    kernel, call = CALLS[name]
    with chosen(**{kernel: "fused"}):
        wanted = slope(name, X)
    with chosen(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        found = grad(lambda x: call(x).sum())(X)
        two = vmap(grad(lambda x: call(x).sum()))(torch.stack([X, UP]))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(two, torch.stack([wanted, slope(name, UP)]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_as_one_after_the_other(name: str) -> None:
    call = CALLS[name][1]
    both = torch.stack([X, UP])
    with chosen(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        found = vmap(call)(both)
    torch.testing.assert_close(found, torch.stack([call(x) for x in both]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_fused_alone_is_refused(name: str) -> None:
    kernel, call = CALLS[name]
    refused = f"kernels.{kernel}: fused, but it does not know the transforms of torch.func"
    for transform in (grad, vmap):
        with chosen(**{kernel: "fused"}), pytest.raises(UserError, match=refused):
            transform(lambda x: call(x).sum())(X[None] if transform is vmap else X)


def test_it_is_said() -> None:
    said = "kernels.loss: plain torch, for it does not know the transforms of torch.func"
    with chosen(), pytest.warns(FallbackWarning, match=said):
        grad(lambda x: CALLS["linear_loss"][1](x).sum())(X)
