"""The last layer and its loss by chunks: values, gradients, promises, memory."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.errors import UserError
from megatron_jobs.kernels.cap import soft_cap
from megatron_jobs.kernels.dispatch import FallbackWarning, choose
from megatron_jobs.kernels.linear_loss import chunk_rows, linear_cross_entropy
from megatron_jobs.kernels.loss import cross_entropy_reference
from megatron_jobs.kernels.loss_ops import Terms
from megatron_jobs.kernels.native import built, cpu
from tests.fused import MACHINES

if built("_kernels") is None:
    pytest.skip("megatron_jobs._kernels is not built", allow_module_level=True)

BOUND = {torch.float32: 2e-5, torch.bfloat16: 4e-2, torch.float16: 1e-2}
SHAPES = [(0, 3, 5), (1, 1, 1), (13, 7, 300), (31, 16, 1009)]
"""R, H, V."""
BENT = Terms(cap=5.0, smoothing=0.1, z_loss=1e-3)


@pytest.fixture(autouse=True)
def fused() -> Iterator[None]:
    choose(KernelsConfig(loss="fused"))
    yield
    choose(KernelsConfig())
    cpu().choose_machine("")


def drawn(shape: tuple[int, int, int], dtype: torch.dtype) -> tuple[list[Tensor], Tensor, Tensor]:
    """Hidden, weight and bias, which have gradients; targets; weights, of which one is 0."""
    rows, hidden, columns = shape
    draw = torch.Generator().manual_seed(sum(shape))
    sizes = [(rows, hidden), (columns, hidden), (columns,)]
    tensors = [torch.randn(size, generator=draw).to(dtype).requires_grad_() for size in sizes]
    targets = torch.randint(columns, (rows,), generator=draw)
    weights = torch.rand(rows, generator=draw) + 0.5
    weights[1:2] = 0
    return tensors, targets, weights


def gradients(losses: Tensor, factors: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad((losses * factors).sum(), tensors))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("terms", [Terms(), BENT], ids=["plain", "bent"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("known", [True, False], ids=["weights", "twice"])
def test_values_and_gradients_are_those_of_fp64(
    shape: tuple[int, int, int], terms: Terms, dtype: torch.dtype, machine: str, known: bool
) -> None:
    cpu().choose_machine(machine)
    (hidden, weight, bias), targets, weights = drawn(shape, dtype)
    told = weights if known else None
    losses = linear_cross_entropy(
        hidden, weight, targets, bias_V=bias, weights_R=told, terms=terms, rows=7
    )
    found = gradients(losses, 3 * weights, [hidden, weight, bias])  # 3 of which nothing was said
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight, bias)]
    logits = exact[0] @ exact[1].t() + exact[2]
    logits = soft_cap(logits, terms.cap) if terms.cap else logits
    expected = cross_entropy_reference(
        logits, targets, smoothing=terms.smoothing, z_loss=1e-3 if terms.z_loss else 0
    )
    bound = BOUND[dtype]
    assert_close(losses.detach().double(), expected.detach(), rtol=bound, atol=bound)
    for mine, theirs in zip(found, gradients(expected, 3 * weights, exact), strict=True):
        assert mine.dtype == dtype
        largest = float(theirs.abs().max()) if theirs.numel() else 1.0
        assert_close(mine.double(), theirs, rtol=bound, atol=bound * max(largest, 0.1))


@pytest.mark.parametrize("rows", [1, 8, 31, 100])
def test_chunks_of_any_size_give_the_same(rows: int) -> None:
    (hidden, weight, _), targets, weights = drawn((31, 16, 1009), torch.float32)
    whole = linear_cross_entropy(hidden, weight, targets, weights_R=weights)
    losses = linear_cross_entropy(hidden, weight, targets, weights_R=weights, rows=rows)
    assert_close(losses, whole, rtol=1e-6, atol=1e-6)
    pair = [hidden, weight]
    for mine, theirs in zip(*(gradients(x, weights, pair) for x in (losses, whole)), strict=True):
        assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_only_what_learns_has_a_gradient() -> None:
    (hidden, weight, _), targets, weights = drawn((13, 8, 700), torch.float32)
    frozen = weight.detach()
    losses = linear_cross_entropy(hidden, frozen, targets, weights_R=weights)
    (alone,) = gradients(losses, weights, [hidden])
    both = gradients(
        linear_cross_entropy(hidden, weight, targets, weights_R=weights), weights, [hidden, weight]
    )
    assert torch.equal(alone, both[0])
    with torch.no_grad():
        found = linear_cross_entropy(hidden, weight, targets, weights_R=weights)
    assert not found.requires_grad
    assert torch.equal(found, losses)  # what is evaluated is what is learnt from, bit for bit


def test_other_weights_than_was_said_are_an_error() -> None:
    (hidden, weight, _), targets, weights = drawn((13, 8, 700), torch.float32)
    losses = linear_cross_entropy(hidden, weight, targets, weights_R=weights)
    with pytest.raises(ValueError, match=r"weights: the loss of row \d+ was multiplied by 1, but "):
        gradients(losses, torch.ones(13), [hidden])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_is_handed_on(bad: float) -> None:
    (hidden, weight, _), targets, weights = drawn((13, 8, 700), torch.float32)
    one = torch.ones(13)
    one[3] = bad
    for factors in (bad * weights, one * weights):  # weights have a 0
        losses = linear_cross_entropy(hidden, weight, targets, weights_R=weights)
        assert not gradients(losses, factors, [hidden])[0].isfinite().all()


def test_what_is_written_to_before_backward_is_an_error() -> None:
    (hidden, weight, _), targets, weights = drawn((13, 8, 700), torch.float32)
    for told, changed in ((weights, weights), (None, targets)):
        losses = linear_cross_entropy(hidden, weight, targets, weights_R=told)
        changed += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradients(losses, torch.ones(13), [hidden])


@pytest.mark.parametrize("known", [True, False])
def test_there_is_no_second_derivative(known: bool) -> None:
    (hidden, weight, _), targets, weights = drawn((5, 8, 70), torch.float32)
    told = weights if known else None
    losses = linear_cross_entropy(hidden, weight, targets, weights_R=told)
    with pytest.raises(UserError, match=r"take kernels\.loss: reference"):
        torch.autograd.grad((losses * weights).sum(), hidden, create_graph=True)


def test_gradients_are_handed_on_once() -> None:
    (hidden, weight, _), targets, weights = drawn((13, 8, 700), torch.float32)
    losses = linear_cross_entropy(hidden, weight, targets, weights_R=weights)
    total = (losses * weights).sum()
    total.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="its gradients were handed on already"):
        total.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(4, 2, 3), (5, 3), (8,)], "hidden must be [R, H], got [4, 2, 3]"),
        ([(4, 3), (5, 2), (4,)], "weight must be [5, 3], got [5, 2]"),
        ([(4, 3), (5, 3), (3,)], "targets must be [4], got [3]"),
        ([(4, 3), (5, 3), (4,), (4,)], "bias must be [5], got [4]"),
    ],
)
def test_what_does_not_fit_is_refused(shapes: list[tuple[int, ...]], message: str) -> None:
    hidden, weight, targets, *bias = map(torch.zeros, shapes)
    with pytest.raises(ValueError, match=re.escape(message)):
        linear_cross_entropy(hidden, weight, targets.long(), bias_V=bias[0] if bias else None)


def test_what_has_no_fused_form_says_so_once() -> None:
    choose(KernelsConfig())
    (hidden, weight, bias), targets, _ = drawn((13, 8, 700), torch.float64)
    reason = "kernels.loss: plain torch, for it does not know float64"
    with pytest.warns(FallbackWarning, match=reason) as told:
        losses = [linear_cross_entropy(hidden, weight, targets, bias_V=bias) for _ in range(2)]
    assert len(told) == 1
    expected = cross_entropy_reference(hidden @ weight.t() + bias, targets)
    assert_close(losses[1], expected, rtol=1e-12, atol=1e-12)


def test_compiled_whole() -> None:
    (hidden, weight, bias), targets, weights = drawn((13, 8, 700), torch.float32)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(*tensors: Tensor) -> Tensor:
        h, w, b = tensors
        return linear_cross_entropy(h, w, targets, bias_V=b, terms=Terms(cap=4.0))

    plain = linear_cross_entropy(hidden, weight, targets, bias_V=bias, terms=Terms(cap=4.0))
    found = compiled(hidden, weight, bias)
    assert_close(found, plain, rtol=1e-6, atol=1e-5)
    tensors = [hidden, weight, bias]
    pairs = zip(*(gradients(x, weights, tensors) for x in (found, plain)), strict=True)
    for mine, theirs in pairs:
        assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_chunks_are_of_128_mib_but_not_of_few_rows() -> None:
    assert chunk_rows(torch.empty(32000, 4, dtype=torch.bfloat16)) == (128 << 20) // 64000
    assert chunk_rows(torch.empty(128256, 4)) == 1024


PEAK = """
import re, sys, torch
from pathlib import Path
from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.linear_loss import linear_cross_entropy

def peak():
    return int(re.search("VmHWM:\\\\s+(\\\\d+)", Path("/proc/self/status").read_text())[1])

def learn(rows, columns):
    hidden = torch.randn(rows, 8, requires_grad=True)
    weight = torch.randn(columns, 8, requires_grad=True)
    targets, weights = torch.zeros(rows, dtype=torch.int64), torch.ones(rows)
    linear_cross_entropy(hidden, weight, targets, weights_R=weights, rows=256).sum().backward()

found = []
for form in ("fused", "reference"):
    choose(KernelsConfig(loss=form))
    before = peak()
    learn(2048, 16000)
    found.append(peak() - before >> 10)
print(*found)
"""


def test_no_logits_of_all_tokens_are_held() -> None:
    """Of 125 MiB 16 at a time, as their own gradient; by plain torch several times all."""
    words = [sys.executable, "-c", PEAK]
    grown = subprocess.run(words, capture_output=True, check=True, text=True).stdout
    fused, more = map(int, grown.split())
    assert fused < 40
    assert more > 200
