"""Kernels for CUDA, emulated: norms, activations, the residual stream. R rows, H or F columns."""

from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.kernels import cuda_layers
from megatron_jobs.kernels.activation import geglu_reference, geglu_tanh_reference
from tests.emulated import drawn, emulated

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BOUND = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
NORM_SHAPES = [(0, 8), (1, 1), (3, 7), (5, 64), (2, 128), (3, 1031), (2, 4096), (1, 20000)]


@pytest.fixture(scope="module", autouse=True)
def module() -> Iterator[ModuleType]:
    with emulated() as found:
        yield found


def close(found: Tensor, expected: Tensor, dtype: torch.dtype, *, wider: float = 1.0) -> None:
    """`found`, of `dtype`, is what fp64 gives, but for the rounding of the dtype."""
    assert found.dtype == dtype
    bound = wider * BOUND[dtype]
    assert_close(found.double(), expected, rtol=bound, atol=bound)


def normalised(x: Tensor, weight: Tensor, bias: Tensor | None, offset: bool) -> Tensor:
    """Norms in fp64, by their formulas: LayerNorm with a bias, else RMSNorm."""
    x = x if bias is None else x - x.mean(-1, keepdim=True)
    rows = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    return rows * (weight + offset) + (0 if bias is None else bias)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", NORM_SHAPES)
@pytest.mark.parametrize("kind", ["rms", "layer", "rms residual offset", "layer residual"])
def test_norms_and_their_gradients_are_those_of_fp64(
    kind: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    offset = "offset" in kind
    x, dy, dsum = (drawn(*shape, dtype=dtype, seed=seed) for seed in (1, 2, 3))
    residual = drawn(*shape, dtype=dtype, seed=4) if "residual" in kind else None
    weight, bias = drawn(shape[1], dtype=dtype, seed=5), drawn(shape[1], dtype=dtype, seed=6)
    centred = "layer" in kind
    given_bias = bias if centred else None
    y, total, mean, scale = cuda_layers.norm(x, residual, weight, given_bias, 1e-5, offset, centred)
    whole = x if residual is None else x + residual
    if residual is not None:
        assert torch.equal(total, whole)
    exact = [tensor.double().requires_grad_() for tensor in (whole, weight, bias)]
    expected = normalised(exact[0], exact[1], exact[2] if centred else None, offset)
    close(y, expected.detach(), dtype)
    more = dsum if residual is not None else None
    dx, dweight, dbias = cuda_layers.norm_backward(
        dy, whole, weight, mean, scale, more, offset, centred
    )
    ways = exact if centred else exact[:2]
    gradients = torch.autograd.grad(expected, ways, dy.double())
    close(dx, gradients[0] + (0 if more is None else more.double()), dtype, wider=2)
    close(dweight, gradients[1], dtype, wider=4)
    if centred:
        close(dbias, gradients[2], dtype, wider=4)


def test_many_rows_share_blocks_and_their_sums_are_added_in_order(module: ModuleType) -> None:
    x, dy = drawn(1201, 24, dtype=torch.float32), drawn(1201, 24, dtype=torch.float32, seed=2)
    weight = drawn(24, dtype=torch.float32, seed=3)
    _, _, mean, scale = cuda_layers.norm(x, None, weight, weight, 1e-5, False, True)
    given = dy, x, weight, mean, scale, None, False, True
    _, dweight, dbias = cuda_layers.norm_backward(*given)
    rows = (x.double() - x.double().mean(-1, keepdim=True)) * scale.double()[:, None]
    close(dweight, (dy.double() * rows).sum(0), torch.float32, wider=10)
    close(dbias, dy.double().sum(0), torch.float32, wider=10)
    again = cuda_layers.norm_backward(*given)
    assert torch.equal(dweight, again[1])
    assert torch.equal(dbias, again[2])


def test_no_barrier_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads in the other order give the same bits."""
    x = drawn(2, 5000, dtype=torch.bfloat16)
    weight = drawn(5000, dtype=torch.bfloat16, seed=3)
    forth = cuda_layers.norm(x, None, weight, weight, 1e-5, False, True)
    monkeypatch.setenv("MJ_EMULATED_REVERSED", "1")
    back = cuda_layers.norm(x, None, weight, weight, 1e-5, False, True)
    assert all(map(torch.equal, forth, back))


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def gelu(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (5, 7), (3, 256), (9, 1024), (2, 2056)])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_activations_and_their_gradients_are_those_of_fp64(
    shape: tuple[int, int], gated: bool, biased: bool, dtype: torch.dtype
) -> None:
    rows, columns = shape
    width = columns * (2 if gated else 1)
    x, dy = 3 * drawn(rows, width, dtype=dtype), drawn(rows, columns, dtype=dtype, seed=2)
    bias = drawn(width, dtype=dtype, seed=3) if biased else None
    for function, plain in enumerate((silu, gelu, gelu_tanh)):
        exact = x.double().requires_grad_()
        exact_bias = torch.zeros(width).double() if bias is None else bias.double()
        exact_bias.requires_grad_()
        whole = exact + exact_bias
        gate, value = whole.chunk(2, -1) if gated else (whole, torch.ones(()).double())
        expected = plain(gate) * value
        close(cuda_layers.activation(x, bias, function, gated), expected.detach(), dtype, wider=2)
        dx, dbias = cuda_layers.activation_backward(dy, x, bias, function, gated)
        gradients = torch.autograd.grad(expected, (exact, exact_bias), dy.double())
        close(dx, gradients[0], dtype, wider=4)
        if biased:
            close(dbias, gradients[1], dtype, wider=8)


def test_activations_of_large_numbers_have_no_nan() -> None:
    x = torch.tensor([[-3e38, -1e20, -200.0, 200.0, 1e20, 3e38]])
    for function in range(3):
        dx = cuda_layers.activation_backward(torch.ones_like(x), x, None, function, False)[0]
        assert torch.equal(dx, torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]))


def test_references_of_the_project_agree() -> None:
    x = drawn(4, 64, dtype=torch.float32)
    for function, plain in ((1, geglu_reference), (2, geglu_tanh_reference)):
        assert_close(cuda_layers.activation(x, None, function, True), plain(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (11, 13), (300, 64)])
def test_bias_and_stream_are_added(shape: tuple[int, int], dtype: torch.dtype) -> None:
    x, residual = drawn(*shape, dtype=dtype), drawn(*shape, dtype=dtype, seed=2)
    bias = drawn(shape[1], dtype=dtype, seed=3)
    y = cuda_layers.add_residual(x, bias, residual)
    close(y, x.double() + bias.double() + residual.double(), dtype)
    close(cuda_layers.bias_gradient(residual), residual.double().sum(0), dtype, wider=8)


def test_dropout_draws_the_same_forward_and_backward_for_every_dtype_and_width() -> None:
    seed = torch.tensor([-123456789012345])
    ones = torch.ones(64, 96)
    masks = []
    for columns, dtype in ((96, torch.float32), (96, torch.bfloat16), (1, torch.float16)):
        x = ones.view(-1, columns).to(dtype)
        nothing = torch.zeros_like(x)
        bias = torch.zeros(columns, dtype=dtype)
        y = cuda_layers.drop_add(x, bias, nothing, seed, 0.25)
        dx, dbias = cuda_layers.drop_add_backward(x, seed, 0.25, True)
        assert torch.equal(y, dx)
        if columns > 1:
            assert_close(dbias.float(), dx.float().sum(0), rtol=1e-2, atol=0.0)
        masks.append(y.view(64, 96) > 0)
        assert_close(y.max(), torch.tensor(4 / 3, dtype=dtype))
    assert all(torch.equal(masks[0], mask) for mask in masks)
    assert 0.72 < masks[0].double().mean() < 0.78
    other = cuda_layers.drop_add(ones, None, torch.zeros_like(ones), seed + 1, 0.25)
    assert not torch.equal(other > 0, masks[0])


REFUSALS: list[tuple[Any, str]] = [
    (
        lambda x: cuda_layers.norm(x.t(), None, x[0], None, 1e-5, False, False),
        r"x must be contiguous, got \[8, 4\] strides \[1, 8\]",
    ),
    (
        lambda x: cuda_layers.norm(x, x[:, ::2], x[0], None, 1e-5, False, False),
        r"residual must be \[4, 8\], got \[4, 4\]",
    ),
    (
        lambda x: cuda_layers.norm(x, None, x[0].half(), None, 1e-5, False, False),
        "weight must be float32, got float16",
    ),
    (
        lambda x: cuda_layers.norm_backward(x, x, x[0], x[:3, 0], x[:, 0], None, False, True),
        r"mean must be \[4\], got \[3\]",
    ),
    (lambda x: cuda_layers.activation(x, None, 7, False), "function must be 0, 1 or 2, got 7"),
    (
        lambda x: cuda_layers.drop_add(x, None, x, torch.zeros(1).long(), 1.0),
        "dropout must be at least 0 and below 1, got 1",
    ),
    (
        partial(lambda x: cuda_layers.activation(x, x[0, :4], 0, False)),
        r"bias must be \[8\], got \[4\]",
    ),
]


@pytest.mark.parametrize(("call", "words"), REFUSALS)
def test_what_does_not_fit_is_refused_by_name(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(torch.ones(4, 8))
