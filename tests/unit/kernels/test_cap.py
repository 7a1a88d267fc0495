"""Soft caps against their formula and in numbers."""

import math

import pytest
import torch
from torch.testing import assert_close

from megatron_jobs.kernels.cap import soft_cap


@pytest.mark.parametrize("cap", [0.5, 30.0])
def test_it_is_the_formula(cap: float) -> None:
    x = torch.linspace(-100, 100, 41)
    expected = [cap * math.tanh(value / cap) for value in x.tolist()]
    assert_close(soft_cap(x, cap), torch.tensor(expected))
    assert soft_cap(x.bfloat16(), cap).dtype == torch.bfloat16


def test_small_numbers_stay_and_large_ones_end_at_the_cap() -> None:
    assert_close(soft_cap(torch.tensor([0.0, 0.01]), 30.0), torch.tensor([0.0, 0.01]))
    assert soft_cap(torch.tensor([math.inf, -1e9]), 30.0).tolist() == [30.0, -30.0]


def test_gradients() -> None:
    x = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: soft_cap(x, 2.0), [x])
