"""Experts are chosen, tokens go to them and come back: against fp64 and plain loops."""

import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels import experts_ops
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.experts import (
    Deal,
    bring_rows,
    choose_experts,
    choose_experts_reference,
    collect_rows,
    collect_rows_reference,
    deal_visits,
)
from megatron_jobs.kernels.experts_ops import Route, deal_by_sort
from megatron_jobs.kernels.native import built, cpu
from tests.fused import MACHINES

if built("_kernels") is None:
    pytest.skip("megatron_jobs._kernels is not built", allow_module_level=True)

BOUND = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
ROUTES = {
    "softmax": (13, Route(3)),
    "normalized": (32, Route(4, False, True)),
    "all": (5, Route(5, True, True, 2.0)),
    "one": (1, Route(1, normalized=True)),
    "sigmoid": (257, Route(8, True, False, 2.5)),
    "groups": (24, Route(3, True, True, 2.5, 4, 2, 2)),
    "groups by the best": (160, Route(6, False, False, 16.0, 8, 3, 1)),
    "group of one": (7, Route(2, groups=7, groups_chosen=3)),
}
"""Experts, and how they are chosen."""


@pytest.fixture(autouse=True, params=MACHINES)
def fused(request: pytest.FixtureRequest) -> Iterator[None]:
    choose(KernelsConfig(experts="fused"))
    cpu().choose_machine(request.param)
    yield
    cpu().choose_machine("")
    choose(KernelsConfig())


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def apart(tokens: int, experts: int, dtype: torch.dtype) -> Tensor:
    """Logits no two of which are equal in any dtype: powers are distinct multiples of 1 / 16."""
    draw = torch.Generator().manual_seed(7)
    order = torch.stack([torch.randperm(experts, generator=draw) for _ in range(max(1, tokens))])
    return ((order - experts // 2) / 16)[:tokens].to(dtype)


def dense(weights: Tensor, experts: Tensor, count: int) -> Tensor:
    return torch.zeros(len(weights), count, dtype=weights.dtype).scatter(1, experts, weights)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("tokens", [0, 1, 71])
def test_the_choice_and_its_gradient_are_those_of_fp64(
    tokens: int, name: str, dtype: torch.dtype
) -> None:
    count, route = ROUTES[name]
    logits = apart(tokens, count, dtype).requires_grad_()
    bias = 1e-6 * drawn(count, seed=2) if route.sigmoid else None
    weights, experts = choose_experts(logits, route, bias)
    exact = logits.detach().double().requires_grad_()
    expected, where = choose_experts_reference(exact, route, bias)
    assert (weights.dtype, experts.dtype) == (torch.float32, torch.int64)
    found = dense(weights, experts, count)
    assert_close(found.double(), dense(expected, where, count), rtol=2e-6, atol=1e-7)
    slopes = drawn(tokens, count, seed=3)
    (found * slopes).sum().backward()
    (dense(expected, where, count) * slopes).sum().backward()
    assert logits.grad is not None
    assert exact.grad is not None
    scale = 1 + float(exact.grad.abs().max()) if tokens else 1.0
    assert_close(logits.grad.double(), exact.grad, rtol=2 * BOUND[dtype], atol=1e-6 * scale)


@pytest.mark.parametrize("name", ROUTES)
def test_the_best_come_first_and_the_first_of_equals(name: str) -> None:
    count, route = ROUTES[name]
    size = count // route.groups
    weights, experts = choose_experts(torch.zeros(3, count), route)
    assert experts.tolist() == 3 * [list(range(route.visits))]
    assert route.visits <= route.groups_chosen * size
    weights, _ = choose_experts(drawn(50, count), route)
    assert (weights.diff(dim=1) <= 0).all()


def test_a_score_that_is_no_number_comes_last() -> None:
    logits = torch.tensor([[1.0, torch.nan, 3.0, 2.0]])
    weights, experts = choose_experts(logits, Route(4, sigmoid=True))
    assert experts.tolist() == [[2, 3, 0, 1]]
    assert weights.isnan().tolist() == [[False, False, False, True]]
    assert choose_experts(logits, Route(2))[0].isnan().all()


def goings(kind: str, tokens: int, experts: int, visits: int) -> Tensor:
    goes = torch.zeros(tokens, experts, dtype=torch.bool)
    if kind == "the last alone":
        goes[:, experts - visits :] = True
        return goes
    scores = drawn(tokens, experts)
    if kind == "one is empty":
        scores[:, experts // 2] = -9
    return goes.scatter(1, scores.topk(visits).indices, value=True)


GOINGS = [
    ("any", 0, 4, 2),
    ("any", 1, 1, 1),
    ("any", 101, 13, 3),
    ("one is empty", 64, 8, 2),
    ("the last alone", 37, 6, 1),
    ("the last alone", 37, 6, 4),
]


@pytest.mark.parametrize("case", GOINGS)
def test_visits_are_dealt_expert_by_expert(case: tuple[str, int, int, int]) -> None:
    _, tokens, experts, visits = case
    goes = goings(*case)
    deal = deal_visits(goes, visits)
    slow = [(token, expert) for expert in range(experts) for token in range(tokens)
            if goes[token, expert]]  # fmt: skip
    assert deal.source.tolist() == [token for token, _ in slow]
    for token in range(tokens):
        own = [place for place, visit in enumerate(slow) if visit[0] == token]
        assert deal.places[token].tolist() == own
        assert deal.experts[token].tolist() == [slow[place][1] for place in own]
    for found, by_sort in zip(deal, deal_by_sort(goes, visits), strict=True):
        assert torch.equal(found, by_sort)


def cuts_of(goes: Tensor, whole: bool) -> list[int]:
    counts: list[int] = goes.sum(0).tolist()
    return [sum(counts)] if whole else counts


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("columns", [1, 67])
@pytest.mark.parametrize(("whole", "weighed"), [(False, True), (True, True), (False, False)])
@pytest.mark.parametrize("case", GOINGS)
def test_rows_go_and_come_back(
    case: tuple[str, int, int, int], whole: bool, weighed: bool, columns: int, dtype: torch.dtype
) -> None:
    goes, visits = goings(*case), case[3]
    deal, rows = deal_visits(goes, visits), cuts_of(goes, whole)
    x = drawn(len(goes), columns).to(dtype).requires_grad_()
    weights = drawn(len(goes), visits, seed=2).requires_grad_() if weighed else None
    chunks = bring_rows(x, deal, rows)
    assert [len(chunk) for chunk in chunks] == rows
    assert torch.equal(torch.cat(chunks), x[deal.source])
    halves = [(n + 1) * chunk for n, chunk in enumerate(chunks)]
    y = collect_rows(halves, deal, weights)
    exact = x.detach().double().requires_grad_()
    exact_weights = None if weights is None else weights.detach().double().requires_grad_()
    exact_halves = [(n + 1) * chunk for n, chunk in enumerate(exact[deal.source].split(rows))]
    expected = collect_rows_reference(exact_halves, deal, exact_weights)
    assert y.dtype == dtype
    scale = len(rows) * visits * (1 + float(exact.detach().abs().max()) if len(x) else 1)
    close = {"rtol": BOUND[dtype], "atol": BOUND[dtype] * scale}
    assert_close(y.double(), expected, **close)
    dy = drawn(*y.shape, seed=3).to(dtype)
    y.backward(dy)
    expected.backward(dy.double())
    assert x.grad is not None
    assert exact.grad is not None
    assert_close(x.grad.double(), exact.grad, **close)
    if weights is not None and exact_weights is not None:
        assert weights.grad is not None
        assert exact_weights.grad is not None
        wide = {"rtol": BOUND[dtype], "atol": BOUND[dtype] * scale * columns**0.5 * 4}
        assert_close(weights.grad.double(), exact_weights.grad, **wide)


def test_threads_change_no_bit() -> None:
    count, route = ROUTES["groups"]
    logits = drawn(3001, count)
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        given = logits.clone().requires_grad_()
        weights, experts = choose_experts(given, route)
        goes = torch.zeros(3001, count, dtype=torch.bool).scatter(1, experts, value=True)
        deal = deal_visits(goes, route.visits)
        x = drawn(3001, 67).requires_grad_()
        y = collect_rows(bring_rows(x, deal, cuts_of(goes, False)), deal, weights)
        y.square().sum().backward()
        results.append((weights, experts, *deal, y, x.grad, given.grad))
    torch.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert one is not None
            assert two is not None
            assert torch.equal(one, two)


def small_deal() -> Deal:
    return deal_visits(torch.tensor([[True, True, False], [True, False, True]]), 2)


def test_operators_are_as_torch_wants_them() -> None:
    check = torch.library.opcheck
    logits, bias = drawn(5, 8).requires_grad_(), drawn(8)
    route = Route(2, True, True, 2.5, 4, 2, 2)
    check(experts_ops.choose_experts, (logits, bias, *route))
    weights, experts = choose_experts(logits.detach(), route)
    check(experts_ops.choose_experts_backward, (weights, logits.detach(), experts, *route))
    deal = small_deal()
    check(experts_ops.deal_visits, (torch.ones(3, 2, dtype=torch.bool), 2))
    x, rows = drawn(2, 5).requires_grad_(), [2, 1, 1]
    check(experts_ops.bring_rows, (x, deal.source, deal.places, rows))
    chunks = [tensor.clone() for tensor in drawn(4, 5).split(rows)]
    own = drawn(2, 2)
    check(experts_ops.collect_rows, (chunks, deal.places, own))
    check(experts_ops.collect_rows_backward, (drawn(2, 5), chunks, deal.places, own))


def test_what_lies_apart_is_brought_together_by_functions_alone() -> None:
    deal, rows = small_deal(), [2, 1, 1]
    x = drawn(5, 2).t()
    assert torch.equal(torch.cat(bring_rows(x, deal, rows)), x[deal.source])
    logits = drawn(8, 3).t()
    whole = choose_experts(logits.contiguous(), Route(2))
    assert torch.equal(choose_experts(logits, Route(2))[0], whole[0])
    refused = "must be contiguous, got"
    with pytest.raises(ValueError, match=rf"logits {refused} \[3, 8\] strides \[1, 3\]"):
        experts_ops.choose_experts(logits, None, *Route(2))
    with pytest.raises(ValueError, match=f"x {refused}"):
        experts_ops.bring_rows(x, deal.source, deal.places, rows)
    with pytest.raises(ValueError, match=r"chunks\[1\] must be \[2, 5\], got \[2, 3\]"):
        experts_ops.collect_rows([drawn(2, 5), drawn(2, 3)], deal.places, None)
    with pytest.raises(ValueError, match=rf"chunks\[1\] {refused}"):
        experts_ops.collect_rows([drawn(2, 5), drawn(5, 2).t()], deal.places, None)
    with pytest.raises(ValueError, match=f"goes {refused}"):
        experts_ops.deal_visits(torch.ones(2, 3, dtype=torch.bool).t(), 2)


FAULTS = {
    "bias must be [3], got [2]": lambda: choose_experts(drawn(2, 3), Route(1), drawn(2)),
    "visits must be 1 to 3, got 4": lambda: choose_experts(drawn(2, 3), Route(4)),
    "groups must divide 3 experts, got 2": lambda: choose_experts(drawn(2, 3), Route(1, groups=2)),
    "groups_chosen must be 1 to 3, got 4": lambda: choose_experts(
        drawn(2, 3), Route(1, groups=3, groups_chosen=4)
    ),
    "judges must be 1, or 2 of groups of 2 and more, got 2": lambda: choose_experts(
        drawn(2, 3), Route(1, groups=3, judges=2)
    ),
    "token 1 goes to 3 experts, not 2": lambda: deal_visits(
        torch.tensor([[True, True, False], [True, True, True]]), 2
    ),
    "rows must be 4 together, got 3": lambda: bring_rows(drawn(2, 5), small_deal(), [2, 1]),
    "source must be below 2, got 2": lambda: bring_rows(
        drawn(2, 5), small_deal()._replace(source=torch.tensor([0, 1, 2, 0])), [4]
    ),
    "chunks must have 4 rows, got 3": lambda: collect_rows([drawn(3, 5)], small_deal()),
    "places must be below 4, got -1": lambda: collect_rows(
        [drawn(4, 5)], small_deal()._replace(places=torch.tensor([[0, 1], [-1, 2]]))
    ),
    "places has 1 twice": lambda: experts_ops.collect_rows_backward(
        drawn(2, 5), [drawn(4, 5)], torch.tensor([[0, 1], [1, 2]]), None
    ),
    "chosen must be below 3, got 3": lambda: experts_ops.choose_experts_backward(
        drawn(2, 1), drawn(2, 3), torch.tensor([[0], [3]]), *Route(1)
    ),
}


@pytest.mark.parametrize("message", FAULTS)
def test_what_cannot_be_is_said(message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        FAULTS[message]()
