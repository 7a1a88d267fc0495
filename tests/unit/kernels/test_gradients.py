"""Gradients added to fp32 sums, beside torch in fp64, on every machine and number of threads."""

import pytest
import torch
from torch import Tensor

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.errors import UserError
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.gradients import add_gradient, add_gradient_reference
from megatron_jobs.kernels.native import cpu
from tests.fused import MACHINES

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = ((0,), (1,), (17, 3), (1 << 15,), (331, 997), (2200, 1024))
"""The last one is written past the caches."""


def both(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A sum and a gradient."""
    torch.manual_seed(len(shape))
    return torch.randn(shape), torch.randn(shape).to(dtype)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums(shape: tuple[int, ...], dtype: torch.dtype, machine: str) -> None:
    cpu().choose_machine(machine)
    total, gradient = both(shape, dtype)
    wanted = (total.double() + gradient.double()).float()
    add_gradient(total, gradient)
    assert torch.equal(total, wanted)
    total.fill_(torch.nan)
    add_gradient(total, gradient, first=True)
    assert torch.equal(total, gradient.float())
    cpu().choose_machine("")


@pytest.mark.parametrize("first", [False, True])
def test_threads_and_gaps_change_nothing(first: bool) -> None:
    total, gradient = both((300, 1001), torch.bfloat16)
    wanted = total.clone()
    add_gradient_reference(wanted, gradient, first=first)
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        for given in (gradient, gradient.t().contiguous().t()):
            found = total.clone()
            add_gradient(found, given, first=first)
            assert torch.equal(found, wanted), (threads, given.stride())
    torch.set_num_threads(before)


def test_numbers_beside_a_view_stay() -> None:
    whole, gradient = torch.ones(1000), torch.ones(97, dtype=torch.bfloat16)
    add_gradient(whole[3:100], gradient)
    assert whole.sum() == 1097
    assert torch.equal(whole[3:100], torch.full((97,), 2.0))


def test_reference_is_taken_where_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    choose(KernelsConfig(gradients="reference"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 0)  # which the fused form would refuse
    total, gradient = both((64,), torch.bfloat16)
    wanted = total + gradient
    add_gradient(total, gradient)
    assert torch.equal(total, wanted)
    choose(KernelsConfig(gradients="fused"))
    with pytest.raises(UserError, match="it does not know float64"):
        add_gradient(total, gradient.double())
    choose(KernelsConfig())


@pytest.mark.parametrize(
    ("total", "message"),
    [
        (torch.zeros(4).double(), "total must be float32, got float64"),
        (torch.zeros(5), r"total must be \[4\], got \[5\]"),
        (torch.zeros(8)[::2], r"total must be contiguous, got \[4\] strides \[2\]"),
    ],
)
def test_other_sums_are_refused(total: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        add_gradient(total, torch.zeros(4))
