"""Weights of masked scores: against fp64, against torch's softmax, and their messages."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.native import built, cpu
from megatron_jobs.kernels.softmax import masked_softmax, masked_softmax_reference
from megatron_jobs.kernels.softmax_ops import softmax, softmax_backward
from tests.fused import MACHINES

if built("_kernels") is None:
    pytest.skip("megatron_jobs._kernels is not built", allow_module_level=True)

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
SHAPES = [(1, 1, 1, 1), (2, 3, 7, 7), (1, 2, 5, 37), (2, 1, 3, 130), (0, 2, 3, 4), (2, 2, 0, 3)]


@pytest.fixture(autouse=True)
def fused() -> Iterator[None]:
    choose(KernelsConfig(softmax="fused"))
    yield
    choose(KernelsConfig())
    cpu().choose_machine("")


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Scores, and a mask for all heads that lets each query see its first key."""
    draw = torch.Generator().manual_seed(9)
    scores = (4 * torch.randn(shape, generator=draw)).to(dtype)
    allowed = torch.rand(shape[0], 1, *shape[2:], generator=draw) < 0.6
    allowed[..., :1] = True
    return scores, allowed


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_fp64(
    shape: tuple[int, ...], cap: float | None, dtype: torch.dtype, machine: str
) -> None:
    cpu().choose_machine(machine)
    scores, allowed = drawn(shape, dtype)
    exact = scores.double().requires_grad_()
    for causal in (False, True):
        rule = {"allowed": allowed, "scale": 0.7, "cap": cap, "causal": causal}
        given = scores.clone().requires_grad_()
        found = masked_softmax(given, **rule)
        choose(KernelsConfig(softmax="reference"))
        expected = masked_softmax(exact, **rule)
        choose(KernelsConfig(softmax="fused"))
        assert found.dtype == dtype
        bound = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        assert_close(found.double(), expected, **bound)
        dw = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        (slope,) = torch.autograd.grad(found, given, dw)
        (expected_slope,) = torch.autograd.grad(expected, exact, dw.double())
        assert_close(slope.double(), expected_slope, rtol=bound["rtol"], atol=4 * bound["atol"])


@pytest.mark.parametrize("form", ["reference", "fused"])
@pytest.mark.parametrize("cap", [None, 3.0])
def test_each_row_is_its_formula(cap: float | None, form: str) -> None:
    choose(KernelsConfig(softmax=form))
    scores, allowed = drawn((2, 3, 5, 11), torch.float32)
    found = masked_softmax(scores, allowed=allowed, scale=0.7, cap=cap)
    for b, n, q in ((b, n, q) for b in range(2) for n in range(3) for q in range(5)):
        row = masked_softmax_reference(scores[b, n, q], allowed[b, 0, q], scale=0.7, cap=cap)
        assert_close(found[b, n, q].double(), row, rtol=3e-6, atol=1e-7)


@pytest.mark.parametrize("form", ["reference", "fused"])
def test_a_query_that_sees_nothing_is_not_a_number(form: str) -> None:
    choose(KernelsConfig(softmax=form))
    allowed = torch.tensor([[True, False], [False, False]])
    found = masked_softmax(torch.ones(1, 1, 2, 2), allowed=allowed)
    assert found[0, 0, 0].tolist() == [1, 0]
    assert found[0, 0, 1].isnan().all()
    found = masked_softmax(torch.ones(1, 1, 3, 2), causal=True)
    assert found[0, 0, 0].isnan().all()
    assert found[0, 0, 1:].tolist() == [[1, 0], [0.5, 0.5]]


def test_threads_change_no_bit() -> None:
    scores, allowed = drawn((2, 4, 33, 257), torch.float32)
    weights, slopes, before = [], [], torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        weights.append(softmax(scores, allowed.expand_as(scores), 0.5, 2.0, True))
        slopes.append(softmax_backward(scores, scores, weights[-1], 0.5, 2.0, True))
    torch.set_num_threads(before)
    assert all(torch.equal(weights[0], other) for other in weights[1:])
    assert all(torch.equal(slopes[0], other) for other in slopes[1:])


def test_the_operators_are_whole() -> None:
    scores, allowed = drawn((1, 2, 3, 5), torch.float32)
    given = (scores.clone().requires_grad_(), allowed.expand_as(scores), 0.5, 2.0, False)
    torch.library.opcheck(softmax, given)
    torch.library.opcheck(softmax_backward, (scores, scores, scores, 0.5, 2.0, False))


def test_refusals_name_the_tensor() -> None:
    scores, allowed = drawn((1, 2, 3, 5), torch.float32)
    with pytest.raises(ValueError, match=r"^scores must be float32 or .*, got float64$"):
        softmax(scores.double(), None, 1.0, 0.0, False)
    with pytest.raises(ValueError, match=r"^scores must be contiguous, got \[1, 2, 5, 3\] strides"):
        softmax(scores.mT, None, 1.0, 0.0, False)
    with pytest.raises(ValueError, match=r"^allowed must be bool, got uint8$"):
        softmax(scores, allowed.expand_as(scores).byte(), 1.0, 0.0, False)
    with pytest.raises(ValueError, match=r"^allowed must be \[1, 2, 3, 5\], got \[1, 1, 3, 5\]$"):
        softmax(scores, allowed, 1.0, 0.0, False)
    with pytest.raises(ValueError, match=r"^weights must be \[1, 2, 3, 5\], got \[1, 2, 2, 5\]$"):
        softmax_backward(scores, scores, scores[:, :, 1:].contiguous(), 1.0, 0.0, False)
    with pytest.raises(ValueError, match=r"^cap must not be negative, got -1$"):
        softmax(scores, None, 1.0, -1.0, False)
