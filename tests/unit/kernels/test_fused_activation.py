"""Fused activations, values and gradients, against float64; every machine, dtype and odd shape."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels import activation_ops
from megatron_jobs.kernels.activation import geglu, geglu_tanh, gelu, gelu_tanh, swiglu
from tests.fused import DTYPES, MACHINES, ROUNDING, chosen, drawn, far, machine, threads

SHAPES = [(0, 4), (2,), (1, 2), (3, 7, 10), (1, 16382), (67, 34), (131, 62)]
Function = Callable[[Tensor], Tensor]


def exact_gelu_tanh(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


KINDS: dict[str, tuple[Callable[..., Tensor], Function, bool]] = {
    "swiglu": (swiglu, functional.silu, True),
    "geglu": (geglu, functional.gelu, True),
    "geglu_tanh": (geglu_tanh, exact_gelu_tanh, True),
    "gelu": (gelu, functional.gelu, False),
    "gelu_tanh": (gelu_tanh, exact_gelu_tanh, False),
}


def exact(kind: str, x: Tensor, bias: Tensor) -> Tensor:
    """In float64."""
    _, function, gated = KINDS[kind]
    x = x + bias
    if not gated:
        return function(x)
    gate, value = x.chunk(2, -1)
    return function(gate) * value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MACHINES)
def test_values_and_gradients_are_those_of_float64(
    name: str, dtype: torch.dtype, kind: str
) -> None:
    for shape in SHAPES:
        x, bias = inputs = drawn(shape, shape[-1:], dtype=dtype)
        with torch.no_grad():
            x.mul_(3)
        doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
        with machine(name), chosen(activation="fused"):
            y = KINDS[kind][0](x, bias)
            up = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
            found = (y, *torch.autograd.grad(y, inputs, up))
        wanted = exact(kind, *doubles)
        wanted_all = (wanted, *torch.autograd.grad(wanted, doubles, up.double()))
        apart = [far(a, b) for a, b in zip(found, wanted_all, strict=True)]
        assert max(apart) < ROUNDING[dtype], (shape, apart)


def far_out(kind: str, x: Tensor) -> Tensor:
    """In float64, without 1 + erf or 1 + tanh: all digits of these are lost far below 0."""
    if kind == "gelu":
        return x * torch.special.erfc(-x / math.sqrt(2)) / 2
    return x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3)))


@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh"])
@pytest.mark.parametrize("name", MACHINES)
def test_far_out_and_where_there_is_no_number(name: str, kind: str) -> None:
    """Small values keep their digits; NaN stays; large numbers give no infinity in between."""
    x = torch.linspace(-12, 12, 997).requires_grad_()
    with machine(name), chosen(activation="fused"):
        found = KINDS[kind][0](x)
        (slope,) = torch.autograd.grad(found.sum(), x)
        ends = KINDS[kind][0](torch.tensor([torch.nan, 3e38, -3e38, 1e20, -1e20]))
    double = x.detach().double().requires_grad_()
    wanted = far_out(kind, double)
    (wanted_slope,) = torch.autograd.grad(wanted.sum(), double)
    loose = 3e-5 if kind == "gelu" else 2e-4  # of e^-72: its exponent has 24 bits
    assert torch.allclose(found.double(), wanted, rtol=loose, atol=1e-30)
    assert torch.allclose(slope.double(), wanted_slope, rtol=loose, atol=1e-7)
    assert ends[0].isnan()
    assert ends[1:].tolist() == [pytest.approx(3e38), 0, pytest.approx(1e20), 0]


def test_slopes_far_out_are_numbers() -> None:
    x = torch.tensor([1e20, -1e20, 3e38, -3e38, 200.0, -200.0, 0.0, 1.0]).requires_grad_()
    with chosen(activation="fused"):
        for function in (gelu, gelu_tanh):
            (slope,) = torch.autograd.grad(function(x).sum(), x)
            assert torch.allclose(slope[:6], torch.tensor([1.0, 0, 1, 0, 1, 0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_do_not_depend_on_threads(dtype: torch.dtype) -> None:
    x, bias = drawn((1031, 262), (262,), dtype=dtype)
    found = []
    for count in (1, 2, 3):
        with threads(count), chosen(activation="fused"):
            y = geglu(x, bias)
            found.append((y, *torch.autograd.grad(y.sum(), (x, bias))))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_large_outputs_that_go_past_the_caches_are_the_same() -> None:
    """1031 x 2048 fp32 are just over the 8 MiB from which stores are streamed."""
    (x,) = drawn((1031, 4096), dtype=torch.float32)
    with chosen(activation="fused"):
        whole = swiglu(x)
        (slope,) = torch.autograd.grad(whole.sum(), x)
        for rows in x.detach().split(100):
            part = rows.clone().requires_grad_()
            own = swiglu(part)
            own.sum().backward()
            assert torch.equal(own, whole[: len(part)])
            assert torch.equal(part.grad, slope[: len(part)]) if part.grad is not None else False
            whole, slope = whole[len(part) :], slope[len(part) :]


@pytest.mark.parametrize("kind", KINDS)
def test_torch_finds_no_fault_with_the_operator(kind: str) -> None:
    x, bias = drawn((3, 4), (4,), dtype=torch.float32)
    _, function, gated = KINDS[kind]
    number = activation_ops.FUNCTIONS.index(
        {functional.silu: "silu", functional.gelu: "gelu"}.get(function, "gelu_tanh")
    )
    for given in (bias, None):
        found = torch.library.opcheck(activation_ops.activation, (x, given, number, gated))
        assert set(found.values()) == {"SUCCESS"}, found


def test_compiled_it_is_the_same() -> None:
    x, bias = drawn((9, 16), (16,), dtype=torch.float32)
    with chosen(activation="fused"):
        plain = swiglu(x, bias)
        compiled = torch.compile(swiglu, backend="aot_eager", fullgraph=True)(x, bias)
        first = torch.autograd.grad(plain.sum(), (x, bias))
        second = torch.autograd.grad(compiled.sum(), (x, bias))
    assert torch.equal(plain, compiled)
    assert all(map(torch.equal, first, second))


def test_faults_are_named() -> None:
    x = torch.ones(4, 6)
    apart = torch.ones(4, 12)[:, ::2]
    with pytest.raises(ValueError, match=r"^x must be contiguous, got \[4, 6\] strides \[12, 2\]$"):
        activation_ops.activation(apart, None, 0, True)
    with pytest.raises(ValueError, match=r"^dy must be contiguous, got \[4, 6\]"):
        activation_ops.activation_backward(apart, x, None, 1, False)
    with pytest.raises(ValueError, match=r"^dy must be \[4, 3\], got \[4, 6\]$"):
        activation_ops.activation_backward(x, x, None, 0, True)
    with pytest.raises(
        ValueError, match=r"^function must be 0 \(silu\), 1 \(gelu\) or 2 .* got 7$"
    ):
        activation_ops.activation(x, None, 7, False)
    with pytest.raises(ValueError, match=r"^bias must be \[6\], got \[3\]$"):
        gelu(x, torch.ones(3))
