"""Attention of bounded scores, against a loop and against torch's where the bound is far."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from megatron_jobs.kernels.attention import capped_attention, capped_attention_reference


def drawn(queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(8)
    q = 3 * torch.randn(2, 6, queries, 5, generator=draw)
    k = 3 * torch.randn(2, 2, keys, 5, generator=draw)
    return q, k, torch.randn(2, 2, keys, 4, generator=draw)


def causal(queries: int, keys: int) -> Tensor:
    return torch.arange(keys - queries, keys)[:, None] >= torch.arange(keys)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (7, 7), (3, 7)])
def test_it_is_its_formula(queries: int, keys: int) -> None:
    q, k, v = drawn(queries, keys)
    rule = {"allowed": causal(queries, keys), "scale": 0.4, "cap": 1.5}
    expected = capped_attention_reference(q, k, v, **rule)  # type: ignore[arg-type]
    assert_close(capped_attention(q, k, v, **rule), expected)  # type: ignore[arg-type]


def test_a_far_cap_changes_nothing() -> None:
    q, k, v = drawn(4, 4)
    found = capped_attention(q, k, v, allowed=None, scale=None, cap=1e6)
    assert_close(found, functional.scaled_dot_product_attention(q, k, v, enable_gqa=True))


def test_gradient() -> None:
    inputs = [x[:1, :, :2].double().requires_grad_() for x in drawn(2, 2)]
    rule = {"allowed": causal(2, 2), "scale": None, "cap": 2.0}
    assert torch.autograd.gradcheck(lambda *x: capped_attention(*x, **rule), inputs)


def test_dropped_weights_are_made_up_for() -> None:
    torch.manual_seed(1)
    q, k = torch.ones(1, 1, 1, 2), torch.ones(1, 1, 10000, 2)
    v = torch.ones(1, 1, 10000, 1)
    found = capped_attention(q, k, v, allowed=None, scale=None, cap=5.0, dropout=0.5)
    assert found.item() != 1
    assert_close(found.item(), 1.0, rtol=0, atol=0.05)
