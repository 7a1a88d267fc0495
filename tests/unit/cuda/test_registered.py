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
from megatron_jobs.kernels.experts import deal_visits
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


@pytest.mark.parametrize("route", [Route(3, True, True, 2.5), Route(2)])
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
