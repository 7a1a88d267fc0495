"""Gradients of gradients, which most fused kernels do not know, are refused and not taken as 0."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.errors import UserError
from megatron_jobs.kernels.activation import swiglu
from megatron_jobs.kernels.causal_attention import causal_attention
from megatron_jobs.kernels.experts import Deal, choose_experts, collect_rows
from megatron_jobs.kernels.experts_ops import Route
from megatron_jobs.kernels.norm import rms_norm
from megatron_jobs.kernels.residual import bias_dropout_add
from megatron_jobs.kernels.rope import rotate
from megatron_jobs.kernels.softmax import masked_softmax
from tests.fused import chosen

DEAL = Deal(torch.arange(32), torch.arange(32).view(32, 1), torch.zeros(32, 1, dtype=torch.int64))
Call = Callable[[Tensor], Tensor]


def heads(x: Tensor) -> Tensor:
    """[32, 32] as [32, 1, 1, 32]."""
    return x[:, None, None]


CALLS: dict[str, list[Call]] = {
    "norm": [lambda x: rms_norm(x, x.mean(0))],
    "activation": [swiglu, lambda x: swiglu(x, x.mean(0))],
    "softmax": [lambda x: masked_softmax(x[None, None])],
    "attention": [lambda x: causal_attention(*(heads(x) for _ in range(3)))],
    "experts": [
        lambda x: choose_experts(x, Route(2))[0],
        lambda x: collect_rows([x], DEAL, x.sum(-1, keepdim=True)),
    ],
}
BOTH = [pytest.param(kernel, call, id=kernel) for kernel, calls in CALLS.items() for call in calls]


def slope(call: Call, x: Tensor, *, squared: bool) -> Tensor:
    """The gradient of the sum, or of the sum of squares, itself to be differentiated."""
    y = call(x)
    (found,) = torch.autograd.grad((y * y if squared else y).sum(), x, create_graph=True)
    return found


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("kernel", "call"), BOTH)
def test_second_gradients_are_refused(kernel: str, call: Call, squared: bool) -> None:
    x = torch.randn(32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with chosen(**{kernel: "reference"}):  # type: ignore[arg-type]
        expected = slope(call, x, squared=squared)
    with chosen(**{kernel: "fused"}):  # type: ignore[arg-type]
        found = slope(call, x, squared=squared)
        assert_close(found, expected, rtol=1e-4, atol=1e-5)
        fault = rf"^kernels.{kernel}: a gradient of a gradient, .*kernels.{kernel}: reference$"
        with pytest.raises(UserError, match=fault):
            torch.autograd.grad(found.square().sum(), x)


def test_sums_have_second_gradients() -> None:
    x = torch.randn(32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = []
    for form in ("fused", "reference"):
        with chosen(residual=form):
            first = slope(lambda x: bias_dropout_add(x, x.square().mean(0), x), x, squared=True)
            found.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert_close(found[0], found[1], rtol=1e-4, atol=1e-3)


def test_turns_have_second_gradients() -> None:
    """The gradient of a turn is a turn."""
    draw = torch.Generator().manual_seed(1)
    x, cos, sin = (torch.randn(8, 4, generator=draw).double() for _ in range(3))
    x = heads(x.float()).requires_grad_()
    turn = partial(rotate, cos_SR=cos.float(), sin_SR=sin.float())
    found = []
    for form in ("fused", "reference"):
        with chosen(rope=form):
            first = slope(turn, x, squared=True)
            found.append(torch.autograd.grad(first.square().sum(), x)[0])
    assert_close(found[0], found[1])
