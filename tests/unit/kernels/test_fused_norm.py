"""Fused norms, values and gradients, against float64; on every machine, dtype and odd shape."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels import norm_ops
from megatron_jobs.kernels.norm import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from tests.fused import DTYPES, MACHINES, ROUNDING, chosen, drawn, far, machine, threads

SHAPES = [(0, 8), (1, 1), (3, 7), (2, 5, 64), (1, 8191), (67, 33), (131, 130)]
Function = Callable[..., tuple[Tensor, Tensor]]


def exact_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, *, centred: bool
) -> tuple[Tensor, Tensor]:
    """In float64, with 1 + weight."""
    total = x + residual
    if centred:
        return functional.layer_norm(total, weight.shape, 1 + weight, bias, 1e-5), total
    return functional.rms_norm(total, weight.shape, 1 + weight, 1e-5) + 0 * bias, total


def fused_norm(
    x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, *, centred: bool
) -> tuple[Tensor, Tensor]:
    """By the public functions."""
    if centred:
        return add_layer_norm(x, residual, weight, bias, offset=True)
    y, total = add_rms_norm(x, residual, weight, eps=1e-5, offset=True)
    return y + 0 * bias, total


def with_gradients(
    function: Function, inputs: list[Tensor], ups: list[Tensor], *, centred: bool
) -> tuple[Tensor, ...]:
    """Both outputs, then the gradients of all inputs."""
    outputs = function(*inputs, centred=centred)
    return (*outputs, *torch.autograd.grad(outputs, inputs, ups))


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MACHINES)
def test_values_and_gradients_are_those_of_float64(
    name: str, dtype: torch.dtype, centred: bool
) -> None:
    for shape in SHAPES:
        row = shape[-1:]
        inputs = drawn(shape, shape, row, row, dtype=dtype)
        ups = [up.detach() for up in drawn(shape, shape, dtype=dtype, seed=2)]
        doubles = [x.detach().double().requires_grad_() for x in inputs]
        rounded = (inputs[0] + inputs[1]).detach().double()  # what is normalised, and given back
        with torch.no_grad():
            doubles[1].copy_(rounded - doubles[0])
        with machine(name), chosen(norm="fused"):
            found = with_gradients(fused_norm, inputs, ups, centred=centred)
        up = [up.double() for up in ups]
        exact = with_gradients(exact_norm, doubles, up, centred=centred)
        apart = [far(a, b) for a, b in zip(found, exact, strict=True)]
        assert max(apart) < ROUNDING[dtype], (shape, apart)


@pytest.mark.parametrize("shape", [(1031, 129), (40, 8191)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_do_not_depend_on_threads(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    inputs = drawn(shape, shape, shape[-1:], shape[-1:], dtype=dtype)
    ups = [up.detach() for up in drawn(shape, shape, dtype=dtype, seed=2)]
    found = []
    for count in (1, 2, 3):
        with chosen(norm="fused"), threads(count):
            found.append(with_gradients(fused_norm, inputs, ups, centred=True))
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_large_outputs_that_go_past_the_caches_are_the_same() -> None:
    """4096 x 1024 fp32 are 16 MiB, beyond the 8 from which stores are streamed."""
    x, w = drawn((4096, 1024), (1024,), dtype=torch.float32)
    with chosen(norm="fused"):
        whole = rms_norm(x, w)
        whole.sum().backward()
        parts = torch.cat([rms_norm(part, w) for part in x.detach().split(64)])
    assert torch.equal(whole, parts)
    exact = x.detach().double().requires_grad_()
    functional.rms_norm(exact, (1024,), w.detach().double(), 1e-6).sum().backward()
    assert x.grad is not None
    assert exact.grad is not None
    assert far(x.grad, exact.grad) < 2e-6


def test_a_gradient_of_the_sum_alone() -> None:
    """Where nobody uses what was normalised."""
    x, r, w = drawn((3, 5), (3, 5), (5,), dtype=torch.float32)
    with chosen(norm="fused"):
        add_rms_norm(x, r, w)[1].sum().backward()
    assert x.grad is not None
    assert r.grad is not None
    assert torch.equal(x.grad, torch.ones(3, 5))
    assert torch.equal(r.grad, torch.ones(3, 5))
    assert torch.equal(w.grad, torch.zeros(5)) if w.grad is not None else False


def test_what_lies_apart_is_brought_together() -> None:
    wide, w, b = drawn((6, 10), (5,), (5,), dtype=torch.float32)
    with chosen(norm="fused"):
        found = layer_norm(wide[:, ::2], w, b)
        rms = rms_norm(wide[:, 5:], w, eps=1e-5)
    assert torch.allclose(found, functional.layer_norm(wide[:, ::2], (5,), w, b), atol=1e-6)
    assert torch.allclose(rms, functional.rms_norm(wide[:, 5:], (5,), w, 1e-5), atol=1e-6)


@pytest.mark.parametrize("given", ["rms", "layer", "residual"])
def test_torch_finds_no_fault_with_the_operator(given: str) -> None:
    x, r, w, b = drawn((3, 5), (3, 5), (5,), (5,), dtype=torch.float32)
    residual = r if given == "residual" else None
    bias = b if given == "layer" else None
    inputs = (x, residual, w, bias, 1e-5, False, bias is not None)
    found = torch.library.opcheck(norm_ops.norm, inputs)
    assert set(found.values()) == {"SUCCESS"}, found


def test_compiled_it_is_the_same() -> None:
    x, w = drawn((9, 16), (16,), dtype=torch.float32)
    with chosen(norm="fused"):
        plain = rms_norm(x, w)
        compiled = torch.compile(rms_norm, backend="aot_eager", fullgraph=True)(x, w)
        first = torch.autograd.grad(plain.sum(), (x, w))
        second = torch.autograd.grad(compiled.sum(), (x, w))
    assert torch.equal(plain, compiled)
    assert all(map(torch.equal, first, second))


def test_faults_are_named() -> None:
    x, w = torch.ones(4, 6), torch.ones(6)

    def call(x: Tensor, residual: Tensor | None, weight: Tensor) -> None:
        norm_ops.norm(x, residual, weight, None, 1e-5, False, False)

    apart = r"^{} must be contiguous, got \[4, 6\] strides \[12, 2\]$"
    with pytest.raises(ValueError, match=apart.format("x")):
        call(torch.ones(4, 12)[:, ::2], None, w)
    with pytest.raises(ValueError, match=apart.format("residual")):
        call(x, torch.ones(4, 12)[:, ::2], w)
    with pytest.raises(ValueError, match=r"^x must be float32 or bfloat16 or float16, got int64$"):
        call(x.long(), None, w)
    with pytest.raises(ValueError, match=r"^weight must be float32, got bfloat16$"):
        call(x, None, w.bfloat16())
    with pytest.raises(ValueError, match=r"^weight must be \[6\], got \[5\]$"):
        call(x, None, torch.ones(5))
    with pytest.raises(ValueError, match=r"^residual must be \[4, 6\], got \[3, 6\]$"):
        add_rms_norm(x, x[:3], w)
    y, _, mean, scale = norm_ops.norm(x, None, w, None, 1e-5, False, False)
    with pytest.raises(ValueError, match=apart.format("dy")):
        up = torch.ones(4, 12)[:, ::2]
        norm_ops.norm_backward(up, x, w, mean, scale, None, False, False)
    with pytest.raises(ValueError, match=r"^scale must be \[4\], got \[3\]$"):
        norm_ops.norm_backward(y, x, w, mean, scale[:3], None, False, False)
