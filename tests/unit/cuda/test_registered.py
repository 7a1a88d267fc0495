"""Every operator has a form for CUDA, and whoever calls it gets there; kernels emulated."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs import kernels
from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels import (
    cuda_experts,
    cuda_layers,
    experts_ops,
    ops,
    residual,
)
from megatron_jobs.kernels.experts import choose_experts_reference, deal_visits
from megatron_jobs.kernels.experts_ops import Route
from tests.emulated import ROOT, drawn, emulated

ON_CPU_ALONE = {"causal_attention", "causal_attention_backward"}
"""CUDA has torch's own."""
WORK = {
    "norm": "norm_forward",
    "activation": "activation_forward",
    "rope": "rope",
    "loss": "loss_whole",
    "softmax": "softmax_forward",
    "adam": "adam_step",
    "gradients": "add_product",
    "experts": "gather_rows",
    "residual": "residual_forward",
}
"""Kernel -> function of the extension."""


@pytest.fixture(scope="module", autouse=True)
def module() -> Iterator[ModuleType]:
    with emulated() as found:
        yield found


def test_every_operator_runs_on_cuda() -> None:
    for found in pkgutil.iter_modules(kernels.__path__):
        importlib.import_module(f"{kernels.__name__}.{found.name}")  # they register
    whole = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith(ops.NAMESPACE)]
    assert len(whole) >= 20
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    missing = {name.partition("::")[2] for name in whole if not has(name, "CUDA")}
    assert missing == ON_CPU_ALONE


def test_what_the_extension_says_it_has_it_has(module: ModuleType) -> None:
    assert set(module.KERNELS) == set(WORK) == set(KernelsConfig.model_fields) - {"attention"}
    assert all(callable(getattr(module, work)) for work in WORK.values())


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Functions for CUDA take the tensors of this test, which are on the CPU."""
    library = torch.library.Library(ops.NAMESPACE, "IMPL")
    library.impl("drop_add", cuda_layers.drop_add, "CPU")
    library.impl("drop_add_backward", cuda_layers.drop_add_backward, "CPU")
    monkeypatch.setattr(residual, "_draws", lambda x: True)
    monkeypatch.setattr(residual, "form_of", lambda *_, unknown=None, **__: unknown or "cuda")
    yield
    library._destroy()


def dropped(bias: bool, seed: int) -> tuple[Tensor, list[Tensor]]:
    """What is left of 2 x, and its inputs."""
    inputs = [drawn(64, 512), drawn(512, seed=2), torch.zeros(64, 512)]
    x, own, nothing = (tensor.requires_grad_() for tensor in inputs)
    torch.manual_seed(seed)
    y = residual.bias_dropout_add(x, own if bias else None, nothing, dropout=0.25)
    return y, [x, own, nothing]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("bias", [False, True])
def test_dropout_is_drawn_by_the_kernel_and_again_by_its_gradient(bias: bool) -> None:
    y, (x, own, nothing) = dropped(bias, seed=3)
    kept = y != 0
    assert abs(float(kept.float().mean()) - 0.75) < 0.01
    whole = x + own if bias else x
    assert_close(y[kept], (whole / 0.75)[kept], rtol=1e-4, atol=1e-6)
    assert torch.equal(dropped(bias, seed=3)[0], y), "the same state of torch's generator"
    assert not torch.equal(dropped(bias, seed=4)[0] != 0, kept)
    dy = drawn(64, 512, seed=5)
    y.backward(dy)
    expected = torch.where(kept, dy / 0.75, 0.0)
    assert x.grad is not None
    assert_close(x.grad, expected, rtol=1e-4, atol=1e-6)
    assert nothing.grad is not None
    assert torch.equal(nothing.grad, dy)
    if bias:
        assert own.grad is not None
        assert_close(own.grad, expected.sum(0), rtol=1e-4, atol=1e-4)


ROUTES = [
    Route(3, True, True, 2.5),
    Route(2),
    Route(3, True, True, 2.5, groups=4, groups_chosen=2, judges=2),
    Route(2, groups=12, groups_chosen=5),
]


@pytest.mark.parametrize("route", ROUTES)
def test_experts_on_cuda_are_those_on_the_cpu(route: Route) -> None:
    logits, bias = drawn(19, 12), 0.1 * drawn(12, seed=2)
    found = cuda_experts.choose_experts(logits, bias, *route)
    for one, other in zip(found, experts_ops.choose_on_cpu(logits, bias, *route), strict=True):
        assert_close(one, other)
    dweights = drawn(19, route.visits, seed=3)
    given = dweights, logits, found[1]
    slope = cuda_experts.choose_experts_backward(*given, *route)
    assert_close(slope, experts_ops.slope_on_cpu(*given, *route))
    goes = torch.zeros(19, 12, dtype=torch.bool).scatter(1, found[1], value=True)
    deal, rows = deal_visits(goes, route.visits), goes.sum(0).tolist()
    x, weights = drawn(19, 40), drawn(19, route.visits, seed=4)
    chunks = cuda_experts.bring_rows(x, deal.source, deal.places, rows)
    pairs = zip(chunks, experts_ops.bring_on_cpu(x, deal.source, deal.places, rows), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    for own in (weights, None):
        y = cuda_experts.collect_rows(chunks, deal.places, own)
        assert_close(y, experts_ops.collect_on_cpu(chunks, deal.places, own))
        back = cuda_experts.collect_rows_backward(x, chunks, deal.places, own)
        apart = [chunk.contiguous() for chunk in chunks]
        assert_close(back, experts_ops.spread_on_cpu(x, apart, deal.places, own))


GROUPED = [
    (24, Route(3, True, True, 2.5, 4, 2, 2)),
    (160, Route(6, False, False, 16.0, 8, 3, 1)),
    (256, Route(8, True, True, 2.5, 8, 4, 2)),
    (512, Route(2, groups=512, groups_chosen=7)),
    (7, Route(7, groups=7, groups_chosen=7)),
]


@pytest.mark.parametrize(("experts", "route"), GROUPED)
def test_groups_of_experts_are_those_of_the_reference(experts: int, route: Route) -> None:
    logits, bias = drawn(9, experts), 0.1 * drawn(experts, seed=2)
    weights, chosen = cuda_experts.choose(logits, route, bias)
    exact, expected = choose_experts_reference(logits.double(), route, bias.double())
    order, same = chosen.argsort(1), expected.argsort(1)
    assert torch.equal(chosen.gather(1, order), expected.gather(1, same))
    assert_close(weights.gather(1, order).double(), exact.gather(1, same), rtol=1e-5, atol=1e-7)
    choice = logits.sigmoid() if route.sigmoid else logits.softmax(1)
    found = (choice + bias).gather(1, chosen)
    assert (found.diff(dim=1) <= 0).all(), "the best first"
    logits[3, 1], logits[4] = torch.nan, 0.0
    both = cuda_experts.choose(logits, route, None), experts_ops.choose_on_cpu(logits, None, *route)
    assert torch.equal(both[0][1], both[1][1]), "NaN last, of equals the first"


def test_a_route_that_cannot_be_is_refused() -> None:
    for route, words in (
        (Route(1, groups=2), "groups must divide 9 experts, got 2"),
        (Route(1, groups=3, groups_chosen=4), "groups_chosen must be 1 to 3, got 4"),
        (Route(1, groups=9, judges=2), "judges must be 1, or 2 of groups of 2 and more, got 2"),
        (Route(4, groups=3), "visits must be 1 to 3, got 4"),
    ):
        with pytest.raises(ValueError, match=words):
            cuda_experts.choose(drawn(2, 9), route, None)


def test_the_stub_is_that_of_the_extension(module: ModuleType) -> None:
    """Names of functions and of their arguments, in order."""
    tree = ast.parse((ROOT / "megatron_jobs" / "_cuda.pyi").read_text())
    told = {
        node.name: [each.arg for each in (*node.args.args, *node.args.kwonlyargs)]
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    public = (name for name in dir(module) if not name.startswith("_"))
    functions = {name for name in public if inspect.isbuiltin(getattr(module, name))}
    assert functions == set(told)
    for name, arguments in told.items():
        first_line = getattr(module, name).__doc__.partition("\n")[0]
        assert re.findall(r"(\w+): ", first_line) == arguments, first_line
