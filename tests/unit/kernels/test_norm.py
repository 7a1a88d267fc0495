"""Norms against their formulas, against float64, and their messages."""

import pytest
import torch
from torch.testing import assert_close
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm

from megatron_jobs.kernels.norm import (
    layer_norm,
    layer_norm_reference,
    rms_norm,
    rms_norm_of_squares,
    rms_norm_reference,
)

SHAPES = [(1, 1), (3, 7), (2, 5, 64), (0, 8)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(1)
    x = 3 + 2 * torch.randn(shape, generator=draw)
    weight, bias = torch.randn(2, shape[-1], generator=draw)
    return x.to(dtype), weight.to(dtype), bias.to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm_is_its_formula(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight, _ = drawn(shape, dtype)
    found = rms_norm(x, weight, eps=1e-5)
    assert found.dtype == dtype
    expected = rms_norm_reference(x, weight, 1e-5)
    assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm_is_its_formula(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight, bias = drawn(shape, dtype)
    found = layer_norm(x, weight, bias, eps=1e-5)
    assert found.dtype == dtype
    expected = layer_norm_reference(x, weight, bias, 1e-5)
    assert_close(found, expected, rtol=TOLERANCE[dtype], atol=3 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [*TOLERANCE, torch.float16])
def test_an_offset_is_added_in_fp32(dtype: torch.dtype) -> None:
    """As transformers' Gemma does: nothing is rounded but the end, so that both are bit-equal."""
    x, weight, bias = drawn((7, 64), dtype)
    weight = weight * 1e-3  # lost in 1 + weight, were it taken in bf16
    theirs = Gemma3RMSNorm(64, eps=1e-5).to(dtype)
    theirs.weight.data.copy_(weight)
    assert_close(rms_norm(x, weight, eps=1e-5, offset=True), theirs(x), rtol=1e-6, atol=1e-6)
    assert_close(
        layer_norm(x, weight, bias, offset=True).float(),
        layer_norm_reference(x.float(), 1 + weight.float(), bias.float(), 1e-5).to(dtype).float(),
        rtol=0,
        atol=1e-5,
    )


def test_columns_that_are_apart_know_the_mean_square_of_all() -> None:
    x, weight, _ = drawn((5, 12), torch.float32)
    square = x.square().mean(-1, keepdim=True)
    for offset in (False, True):
        whole = rms_norm_reference(x, weight, 1e-5, offset=offset)
        for part in (slice(0, 5), slice(5, 12)):
            own = x[:, part], weight[part], square
            assert_close(rms_norm_of_squares(*own, eps=1e-5, offset=offset), whole[:, part])


def test_references_in_numbers() -> None:
    """[3, 4] has root mean square 5/sqrt(2), mean 3.5 and standard deviation 0.5."""
    x, ones = torch.tensor([3.0, 4.0]), torch.ones(2)
    assert_close(rms_norm_reference(x, ones, 0.0), x * 2**0.5 / 5)
    assert_close(rms_norm_reference(x, ones, 0.0, offset=True), 2 * x * 2**0.5 / 5)
    assert_close(layer_norm_reference(x, 2 * ones, ones, 0.0), torch.tensor([-1.0, 3.0]))


def test_gradients() -> None:
    tensors = [t.double().requires_grad_() for t in drawn((3, 5), torch.float32)]
    assert torch.autograd.gradcheck(lambda x, w, _: rms_norm(x, w, eps=1e-5), tensors)
    assert torch.autograd.gradcheck(lambda x, w, b: layer_norm(x, w, b, eps=1e-5), tensors)
    offset = {"eps": 1e-5, "offset": True}
    assert torch.autograd.gradcheck(lambda x, w, _: rms_norm(x, w, **offset), tensors)
    assert torch.autograd.gradcheck(lambda x, w, b: layer_norm(x, w, b, **offset), tensors)


def test_wrong_columns_are_named() -> None:
    x, right, wrong = torch.ones(2, 4), torch.ones(4), torch.ones(3)
    with pytest.raises(ValueError, match=r"^weight must be \[4\], got \[3\]$"):
        rms_norm(x, wrong)
    with pytest.raises(ValueError, match=r"^bias must be \[4\], got \[3\]$"):
        layer_norm(x, right, wrong)
