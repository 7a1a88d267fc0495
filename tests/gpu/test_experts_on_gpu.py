"""Experts, dropout and products on a GPU, by the functions that models call."""

from collections.abc import Iterator

import pytest
import torch
from torch.testing import assert_close

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.experts import (
    bring_rows,
    choose_experts,
    choose_experts_reference,
    collect_rows,
    collect_rows_reference,
    deal_visits,
)
from megatron_jobs.kernels.experts_ops import Route
from megatron_jobs.kernels.gradients import add_product
from megatron_jobs.kernels.residual import bias_dropout_add
from tests.emulated import drawn
from tests.gpu.here import need_gpu, on_gpu

need_gpu()
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def fused() -> Iterator[None]:
    names = ("experts", "residual", "gradients")
    choose(KernelsConfig.model_validate(dict.fromkeys(names, "fused")))
    with on_gpu():
        yield
    choose(KernelsConfig())


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_choose_go_and_come_back(dtype: torch.dtype, groups: int) -> None:
    route = Route(4, normalized=True, groups=groups, groups_chosen=min(groups, 3))
    logits, x = drawn(1031, 32), drawn(1031, 520, dtype=dtype, seed=2).requires_grad_()
    weights, experts = choose_experts(logits, route)
    expected, same = choose_experts_reference(logits.double(), route)
    assert torch.equal(experts.sort().values, same.sort().values)
    assert_close(weights.sum(1).double(), expected.sum(1), rtol=1e-5, atol=1e-6)
    goes = torch.zeros(1031, 32, dtype=torch.bool).scatter(1, experts, value=True)
    deal, rows = deal_visits(goes, 4), goes.sum(0).tolist()
    chunks = [(n + 1) * chunk for n, chunk in enumerate(bring_rows(x, deal, rows))]
    y = collect_rows(chunks, deal, weights)
    exact = x.detach().double().requires_grad_()
    parts = torch.split(exact[deal.source], rows)
    whole = collect_rows_reference([(n + 1) * part for n, part in enumerate(parts)], deal, weights)
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    assert_close(y.double(), whole, rtol=bound, atol=20 * bound)
    y.backward(torch.ones_like(y))
    whole.backward(torch.ones_like(whole))
    assert x.grad is not None
    assert exact.grad is not None
    assert_close(x.grad.double(), exact.grad, rtol=bound, atol=40 * bound)


def test_what_is_dropped_follows_from_torchs_generator() -> None:
    x, bias, nothing = drawn(512, 1024), drawn(1024, seed=2), torch.zeros(512, 1024)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(bias_dropout_add(x, bias, nothing, dropout=0.1))
    kept = runs[0] != 0
    assert abs(float(kept.float().mean()) - 0.9) < 0.005
    assert_close(runs[0][kept], ((x + bias) / 0.9)[kept], rtol=1e-4, atol=1e-5)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[2] != 0, kept)


def test_the_first_product_of_a_step_is_written() -> None:
    dy, x = drawn(700, 96, dtype=torch.bfloat16), drawn(700, 64, dtype=torch.bfloat16, seed=2)
    torch.mm(dy.t(), x)  # torch has cuBLAS loaded from here on
    total = torch.full((96, 64), torch.nan)
    add_product(total, dy, x, first=True)
    add_product(total, dy, x)
    expected = 2 * (dy.double().t() @ x.double())
    assert_close(total.double(), expected, rtol=1e-3, atol=1e-2)
