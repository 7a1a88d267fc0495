"""AdamW of lists against float64 and torch's, on every machine; norms, scales and messages."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs import _kernels
from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.errors import UserError
from megatron_jobs.kernels.adam import (
    AdamRule,
    AdamTensors,
    adam_step,
    adam_step_reference,
    all_finite,
    norm_of,
    norm_of_reference,
    scale_all,
)
from megatron_jobs.kernels.dispatch import FallbackWarning, choose
from tests.fused import MACHINES

SHAPES: dict[str, list[tuple[int, ...]]] = {
    "none": [],
    "odd": [(0,), (1,), (13, 7), (64,), (10007,), (0, 3), (1 << 15,)],
    "tiny": [(n % 5,) for n in range(300)],
    "large": [(3, 70001)],
}
RULE = AdamRule(lr=1e-2, beta1=0.9, beta2=0.95, eps=1e-8, decay=0.1, step=1, factor=0.5)


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Iterator[str]:
    _kernels.choose_machine(request.param)
    yield request.param
    _kernels.choose_machine("")


@pytest.fixture
def plain_torch() -> Iterator[None]:
    choose(KernelsConfig(adam="reference"))
    yield
    choose(KernelsConfig())


def drawn(
    shapes: list[tuple[int, ...]],
    slope: torch.dtype = torch.float32,
    round_to: torch.dtype | None = None,
) -> AdamTensors:
    draw = torch.Generator().manual_seed(3)
    lists = [[torch.randn(s, generator=draw) for s in shapes] for _ in range(4)]
    parameters, gradients, first, second = lists
    return AdamTensors(
        parameters=parameters,
        gradients=[gradient.to(slope) for gradient in gradients],
        first=first,
        second=[square.abs() for square in second],
        rounded=[p.to(round_to) for p in parameters] if round_to else (),
    )


def in_float64(tensors: AdamTensors) -> AdamTensors:
    lists = ("parameters", "gradients", "first", "second")
    return AdamTensors(**{n: [t.double() for t in getattr(tensors, n)] for n in lists})


def worst(found: Tensor, exact: Tensor, base: Tensor) -> float:
    """The largest error, in units of the last place of the numbers that were added up."""
    size = torch.maximum(exact.abs(), base.abs()).float()
    unit = torch.nextafter(size, size + 1) - size
    return float(((found.double() - exact).abs() / unit).max()) if found.numel() else 0.0


@pytest.mark.parametrize("slope", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_a_step_is_that_of_float64(
    machine: str, shapes: list[tuple[int, ...]], slope: torch.dtype
) -> None:
    for rule in (RULE, replace(RULE, step=1000, beta1=0.0, decay=0.0, factor=1.0)):
        tensors = drawn(shapes, slope)
        before, exact = copy.deepcopy(tensors), in_float64(tensors)
        adam_step(tensors, rule)
        adam_step_reference(exact, rule)
        rate = rule.lr / (1 - rule.beta1**rule.step)
        for n, old in enumerate(before.parameters):
            first, second = before.first[n], exact.second[n]
            size = (second / (1 - rule.beta2**rule.step)).sqrt() + rule.eps
            moved = rate * torch.maximum(first.abs(), before.gradients[n].float().abs()) / size
            assert worst(tensors.first[n], exact.first[n], first) <= 3
            assert worst(tensors.second[n], second, before.second[n]) <= 2
            assert worst(tensors.parameters[n], exact.parameters[n], old.abs() + 2 * moved) <= 3
        assert all(map(torch.equal, tensors.gradients, before.gradients))


@pytest.mark.parametrize("fused", [True, False])
def test_twenty_steps_are_those_of_torch(fused: bool) -> None:
    tensors = drawn(SHAPES["odd"])
    theirs = [torch.nn.Parameter(p.clone()) for p in tensors.parameters]
    optimizer = torch.optim.AdamW(theirs, 1e-2, betas=(0.9, 0.95), weight_decay=0.1, fused=fused)
    for moments in (tensors.first, tensors.second):
        torch._foreach_zero_(list(moments))
    draw = torch.Generator().manual_seed(4)
    for step in range(1, 21):
        for gradient, parameter in zip(tensors.gradients, theirs, strict=True):
            parameter.grad = gradient.copy_(torch.randn(gradient.shape, generator=draw))
        optimizer.step()
        adam_step(tensors, replace(RULE, step=step, factor=1.0))
    for found, expected in zip(tensors.parameters, theirs, strict=True):
        assert_close(found, expected.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_rounded_copy_is_the_parameter_rounded(machine: str, kind: torch.dtype) -> None:
    tensors = drawn(SHAPES["odd"] + SHAPES["tiny"], kind, kind)
    adam_step(tensors, RULE)
    for parameter, rounded in zip(tensors.parameters, tensors.rounded, strict=True):
        assert torch.equal(parameter.to(kind), rounded)


def test_threads_change_no_bit(machine: str) -> None:
    found = []
    for threads in (1, 2, 5):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        tensors = drawn(SHAPES["large"] + SHAPES["tiny"])
        adam_step(tensors, replace(RULE, factor=norm_of(tensors.gradients)))
        found.append((norm_of(tensors.parameters), tensors))
        torch.set_num_threads(before)
    for norm, tensors in found[1:]:
        assert norm == found[0][0]
        for name in ("parameters", "first", "second"):
            assert all(map(torch.equal, getattr(tensors, name), getattr(found[0][1], name)))


def test_tensors_may_start_anywhere(machine: str) -> None:
    apart, shapes = drawn([(1000,)]), [(999,)]
    names = ("parameters", "gradients", "first", "second")
    views = AdamTensors(**{name: [getattr(apart, name)[0][1:]] for name in names})
    whole = drawn([(1000,)])
    alone = AdamTensors(**{name: [getattr(whole, name)[0][1:].clone()] for name in names})
    for tensors in (views, alone):
        adam_step(tensors, RULE)
    assert views.parameters[0].shape == shapes[0]
    assert torch.equal(views.parameters[0], alone.parameters[0])
    assert torch.equal(apart.parameters[0][:1], whole.parameters[0][:1])  # and nothing before


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_norm_and_scale_are_those_of_float64(
    machine: str, shapes: list[tuple[int, ...]], kind: torch.dtype
) -> None:
    tensors = drawn(shapes, kind).gradients
    assert norm_of(tensors) == pytest.approx(norm_of_reference(tensors), rel=1e-6)
    expected = [(tensor.float() * 0.3).to(kind) for tensor in tensors]
    assert scale_all(tensors, 0.3)
    assert all(map(torch.equal, tensors, expected))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_not_finite_is_found(machine: str, kind: torch.dtype, bad: float) -> None:
    tensors = [torch.zeros(3, dtype=kind), torch.zeros(70001, dtype=kind)]
    assert all_finite(tensors)
    for place in (0, 40000, 70000):
        tensors[1][place] = bad
        assert not all_finite(tensors)
        assert not math.isfinite(norm_of(tensors))
        assert not scale_all(tensors, 0.5)
        tensors[1][place] = 0
    assert all_finite(tensors)


def test_plain_torch_does_the_same(plain_torch: None) -> None:
    tensors, other = drawn(SHAPES["odd"]), drawn(SHAPES["odd"])
    adam_step(tensors, RULE)
    adam_step_reference(other, RULE)
    assert all(map(torch.equal, tensors.parameters, other.parameters))
    assert norm_of(tensors.parameters) == norm_of_reference(other.parameters)
    assert scale_all(tensors.gradients, 0.5)
    assert not scale_all([torch.tensor([math.inf])], 0.5)


def test_messages_name_the_tensor() -> None:
    tensors = drawn([(2, 3), (4, 5)])
    wrong = [tensors.first[0], torch.zeros(4, 5)]
    for changed, words in [
        ({"second": wrong[:1]}, "second must be 2 tensors, got 1"),
        ({"gradients": [wrong[0], wrong[0]]}, r"gradients\[1\] must be \[4, 5\], got \[2, 3\]"),
    ]:
        with pytest.raises(ValueError, match=words):
            adam_step(replace(tensors, **changed), RULE)
    with pytest.raises(ValueError, match="step must be at least 1, got 0"):
        adam_step(tensors, replace(RULE, step=0))


STRANGE = {
    "parameters and moments that are not contiguous": {"first": [torch.zeros(5, 4).T]},
    "parameters and moments of float64": {"parameters": [torch.ones(4, 5).double()]},
    "parameters and moments of bfloat16 with float32": {
        "parameters": [torch.ones(4, 5).bfloat16()]
    },
    "gradients of float64": {"gradients": [torch.ones(4, 5).double()]},
    "copies of float64": {"rounded": [torch.zeros(4, 5).double()]},
    "copies that are not contiguous": {"rounded": [torch.zeros(4, 10).half()[:, ::2]]},
}


@pytest.mark.parametrize("words", STRANGE)
def test_what_is_not_known_is_moved_by_torch(words: str) -> None:
    tensors = replace(drawn([(4, 5)]), **copy.deepcopy(STRANGE[words]))
    expected = copy.deepcopy(tensors)
    choose(KernelsConfig(adam="fused"))
    with pytest.raises(UserError, match=f"fused, but it does not know {words}; auto takes plain"):
        adam_step(tensors, RULE)
    choose(KernelsConfig())
    with pytest.warns(FallbackWarning, match=f"plain torch, for it does not know {words}$"):
        adam_step(tensors, RULE)
    adam_step_reference(expected, RULE)
    assert_close(tensors.parameters, expected.parameters)
    assert_close(list(tensors.rounded), list(expected.rounded))


def test_mixed_lists_are_plain_torchs() -> None:
    for mixed in (
        [torch.ones(3), torch.full((2, 3), 2.0).half()],
        [torch.ones(3), torch.full((2, 6), 2.0)[:, ::2]],
    ):
        choose(KernelsConfig())
        with pytest.warns(FallbackWarning, match="it does not know tensors "):
            assert norm_of(mixed) == pytest.approx(math.sqrt(27))
        assert all_finite(mixed)
        assert scale_all(mixed, 0.5)
        assert norm_of(mixed) == pytest.approx(math.sqrt(27) / 2)


@pytest.mark.parametrize("size", [1e-44, 1e-25, 1e-19, 1e19, 1e25, 3e38])
def test_norms_of_numbers_of_any_size(machine: str, size: float) -> None:
    tensors = [torch.full((5000,), size), torch.full((3,), -size)]
    assert norm_of(tensors) == pytest.approx(norm_of_reference(tensors), rel=1e-6)


def test_autograd_sees_what_is_written() -> None:
    tensors = drawn([(4, 5), (3,)], round_to=torch.bfloat16)
    written = (*tensors.parameters, *tensors.first, *tensors.second, *tensors.rounded)
    before = [tensor._version for tensor in written]
    adam_step(tensors, RULE)
    assert all(tensor._version > old for tensor, old in zip(written, before, strict=True))
    weight = tensors.parameters[0]
    product = (weight.clone().requires_grad_() * weight).sum()
    scale_all([weight], 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()  # type: ignore[no-untyped-call]
