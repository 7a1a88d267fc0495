"""Cross-entropy on the CPU: every machine, number of threads and dtype, against fp64 and torch."""

import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.errors import UserError
from megatron_jobs.kernels import loss_ops
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.loss import cross_entropy, cross_entropy_reference
from megatron_jobs.kernels.native import built, cpu
from tests.fused import MACHINES

if built("_kernels") is None:
    pytest.skip("megatron_jobs._kernels is not built", allow_module_level=True)

ROUNDED = {torch.float32: 1e-6, torch.bfloat16: 1 / 256, torch.float16: 1 / 1024}
"""Of numbers up to 1."""
SHAPES = [(0, 5), (1, 1), (3, 300), (7, 31), (2, 50257), (5, 4097)]
PLAIN = loss_ops.Rule()


@pytest.fixture(autouse=True)
def fused() -> Iterator[None]:
    choose(KernelsConfig(loss="fused"))
    yield
    choose(KernelsConfig())
    cpu().choose_machine("")


def drawn(shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets of which the last does not count, and weights of which the first is 0."""
    rows, columns = shape
    draw = torch.Generator().manual_seed(rows + columns)
    logits = (4 * torch.randn(shape, generator=draw) - 200).to(dtype)
    targets = torch.randint(columns, (rows,), generator=draw)
    weights = 0.1 + torch.rand(rows, generator=draw)
    if rows > 2:
        targets[-1], weights[0] = -100, 0
    return logits, targets, weights


def taken(
    logits: Tensor, targets: Tensor, weights: Tensor, **terms: float
) -> tuple[Tensor, Tensor]:
    """Losses, and the gradient of the logits, of which a copy is given away."""
    leaf = logits.clone().requires_grad_()
    losses = cross_entropy(leaf * 1, targets, weights_R=weights, **terms)  # type: ignore[arg-type]
    (losses * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None
    return losses.detach(), leaf.grad


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", ROUNDED)
@pytest.mark.parametrize("terms", [{}, {"smoothing": 0.1, "z_loss": 1e-3}], ids=["plain", "terms"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_fp64(
    shape: tuple[int, int], terms: dict[str, float], dtype: torch.dtype, machine: str
) -> None:
    cpu().choose_machine(machine)
    logits, targets, weights = drawn(shape, dtype)
    losses, gradient = taken(logits, targets, weights, **terms)
    exact = logits.double().requires_grad_()
    expected = cross_entropy_reference(exact, targets, **terms)
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert (losses.dtype, gradient.dtype) == (torch.float32, dtype)
    assert_close(losses.double(), expected.detach(), rtol=3e-7, atol=1e-4)
    assert exact.grad is not None
    bound = ROUNDED[dtype]
    assert_close(gradient.double(), exact.grad, rtol=bound, atol=max(bound / 50, 2e-7))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", ROUNDED)
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype, machine: str) -> None:
    cpu().choose_machine(machine)
    logits, targets, weights = drawn((37, 5003), dtype)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(taken(logits, targets, weights))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, other, found[0]))


def test_numbers_beyond_all_bounds_are_those_of_torch() -> None:
    """A mask of -inf, also over more than a stretch; NaN, and rows of nothing, stay seen."""
    logits = torch.randn(6, 5000, generator=torch.Generator().manual_seed(1))
    logits[0, :4000] = -torch.inf
    logits[1, 3] = torch.nan
    logits[2] = -torch.inf
    logits[3, 9] = torch.inf
    logits[4, 10], logits[5] = 3e38, -3e38
    targets = torch.tensor([4500, 5, 5, 9, 10, 2])
    losses, gradient = taken(logits, targets, torch.ones(6))
    leaf = logits.requires_grad_()
    expected = functional.cross_entropy(leaf, targets, reduction="none")
    expected.sum().backward()  # type: ignore[no-untyped-call]
    assert_close(losses, expected.detach(), equal_nan=True)
    assert leaf.grad is not None
    sound = torch.tensor([0, 4, 5])
    assert_close(gradient[sound], leaf.grad[sound])
    assert gradient[[1, 2, 3]].isnan().any(1).all()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", ROUNDED)
@pytest.mark.parametrize("path", ["whole", "parts", "compiled"])
def test_masked_columns_have_no_gradient(path: str, dtype: torch.dtype, machine: str) -> None:
    """Logits of -inf, as of ids that only fill up a vocabulary, on every way to a gradient."""
    cpu().choose_machine(machine)
    logits, targets, weights = drawn((5, 300), dtype)
    logits = logits + 200
    logits[:, 70:], targets = -torch.inf, targets % 70
    exact = logits.double().requires_grad_()
    expected = functional.cross_entropy(exact, targets, reduction="none")
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    if path == "whole":
        losses, gradient = taken(logits, targets, weights)
    elif path == "parts":
        losses, gradient = in_two_parts(logits, targets, weights)
    else:
        leaf = logits.clone().requires_grad_()
        losses = loss_ops.cross_entropy(leaf, targets, 0.0, 0.0)[0]
        (gradient,) = torch.autograd.grad(losses, leaf, weights)
    assert exact.grad is not None
    bound = ROUNDED[dtype]
    assert_close(losses.double(), expected, rtol=1e-6, atol=1e-5, check_dtype=False)
    assert_close(gradient.double(), exact.grad, rtol=bound, atol=max(bound / 50, 2e-7))
    assert not gradient[:, 70:].any()


def in_two_parts(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """As two tensor ranks would; all columns of the second may be masked."""
    rules = [loss_ops.Rule(first, logits.size(1)) for first in (0, 150)]
    halves = [half.contiguous() for half in torch.split(logits, 150, 1)]
    pairs = list(zip(halves, rules, strict=True))
    every = torch.stack([loss_ops.loss_parts(half, targets, *rule) for half, rule in pairs])
    assert not every[:, 1].isnan().any()
    logsum = (every[:, 0] + every[:, 1].log()).logsumexp(0)
    for half, rule in pairs:
        loss_ops.loss_gradient(half, targets, logsum, weights, *rule)
    return logsum - every[:, 2].sum(0), torch.cat(halves, 1)


def test_losses_weighted_otherwise_than_was_said_have_their_gradient() -> None:
    logits, targets, weights = drawn((7, 4099), torch.float32)
    leaf = logits.clone().requires_grad_()
    factors = torch.arange(7.0)  # 0 where the weight is
    (cross_entropy(leaf * 1, targets, weights_R=weights) * factors).sum().backward()  # type: ignore[no-untyped-call]
    other = logits.clone().requires_grad_()
    (cross_entropy(other * 1, targets) * factors).sum().backward()  # type: ignore[no-untyped-call]
    plain = logits.clone().requires_grad_()
    losses = functional.cross_entropy(plain, targets, reduction="none")
    (losses * factors).sum().backward()  # type: ignore[no-untyped-call]
    assert_close(leaf.grad, plain.grad, rtol=1e-5, atol=1e-6)
    assert_close(other.grad, plain.grad, rtol=1e-5, atol=1e-6)


def test_a_row_that_should_not_count_and_does_is_an_error() -> None:
    logits, targets, weights = drawn((7, 4099), torch.float32)
    losses = cross_entropy(logits.requires_grad_() * 1, targets, weights_R=weights)
    with pytest.raises(ValueError, match=r"weights: the loss of row 0 was multiplied by 1, but 0 "):
        losses.sum().backward()  # type: ignore[no-untyped-call]


def test_a_gradient_that_is_not_finite_is_handed_on() -> None:
    logits, targets, weights = drawn((7, 99), torch.float32)
    for factor in (torch.nan, torch.inf):
        leaf = logits.clone().requires_grad_()
        losses = cross_entropy(leaf * 1, targets, weights_R=weights)
        (losses * weights).sum().mul(factor).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        assert not leaf.grad.isfinite().all()


def test_weights_written_to_before_backward_are_an_error() -> None:
    logits, targets, weights = drawn((7, 99), torch.float32)
    losses = cross_entropy(logits.requires_grad_() * 1, targets, weights_R=weights)
    weights *= 2
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        losses.sum().backward()  # type: ignore[no-untyped-call]


def test_there_is_no_second_derivative() -> None:
    logits, targets, _ = drawn((2, 9), torch.float32)
    leaf = logits.requires_grad_()
    losses = cross_entropy(leaf * 1, targets)
    with pytest.raises(UserError, match=r"take kernels\.loss: reference"):
        torch.autograd.grad(losses.sum(), leaf, create_graph=True)


def test_the_operator_has_no_second_derivative() -> None:
    logits, targets, _ = drawn((2, 9), torch.float32)
    leaf = logits.requires_grad_()
    losses, _ = torch.ops.megatron_jobs.cross_entropy(leaf, targets, 0.0, 0.0)
    (slope,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
    with pytest.raises(UserError, match=r"take kernels\.loss: reference"):
        torch.autograd.grad(slope.square().sum(), leaf)


@pytest.mark.parametrize("form", ["fused", "reference"])
@pytest.mark.parametrize("wrong", [5, -5])
def test_a_target_that_is_no_id_is_an_error(form: str, wrong: int) -> None:
    choose(KernelsConfig(loss=form))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"^targets\[1\] is {wrong}, not one of 5$"):
        cross_entropy(torch.zeros(3, 5), torch.tensor([-100, wrong, 0]))


def test_the_whole_is_of_all_columns() -> None:
    given = torch.zeros(2, 6), torch.tensor([1, 2]), torch.ones(2)
    for rule in (PLAIN._replace(vocab=12), PLAIN._replace(first=6, vocab=12)):
        words = f"logits must be all columns, got 6 of 12 from {rule.first} on"
        with pytest.raises(ValueError, match=words):
            loss_ops.loss_whole(*given, *rule)


def test_without_a_gradient_the_logits_stay() -> None:
    logits, targets, weights = drawn((7, 4099), torch.bfloat16)
    kept = logits.clone().requires_grad_()
    with torch.no_grad():
        alone = cross_entropy(kept, targets)
    assert torch.equal(kept, logits)
    assert_close(alone, taken(logits, targets, weights)[0], rtol=1e-6, atol=1e-6)


def test_whoever_kept_overwritten_logits_is_told() -> None:
    logits, targets, _ = drawn((7, 4099), torch.float32)
    made = logits.requires_grad_().exp()  # its gradient needs what it made
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cross_entropy(made, targets).sum().backward()  # type: ignore[no-untyped-call]


REFUSED = {
    "logits must be contiguous, got [4, 6] strides [1, 4]": {"logits": torch.zeros(6, 4).t()},
    "logits must be [R, V], got [4]": {"logits": torch.zeros(4)},
    "logits must have columns, got [4, 0]": {"logits": torch.zeros(4, 0)},
    "targets must be int64, got int32": {"targets": torch.zeros(4, dtype=torch.int32)},
    "targets must be [4], got [3]": {"targets": torch.zeros(3, dtype=torch.int64)},
    "targets must be contiguous, got [4] strides [2]": {
        "targets": torch.zeros(8, dtype=torch.int64)[::2]
    },
    "targets[0] is 6, not one of 6": {"targets": torch.full((4,), 6)},
    "weights must be float32, got float64": {"weights": torch.zeros(4, dtype=torch.float64)},
    "weights must be [4], got [1]": {"weights": torch.zeros(1)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused_by_name(message: str) -> None:
    given = {
        "logits": torch.zeros(4, 6),
        "targets": torch.zeros(4, dtype=torch.int64),
        "weights": torch.zeros(4),
    }
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loss_ops.loss_whole(*(given | REFUSED[message]).values(), *PLAIN)


@pytest.mark.parametrize("dtype", ROUNDED)
def test_operators_are_what_they_say(dtype: torch.dtype) -> None:
    logits, targets, weights = drawn((3, 11), dtype)
    logsum = logits.float().logsumexp(-1)
    rule = PLAIN._replace(vocab=11)
    for operator, given in {
        loss_ops.loss_whole: (logits, targets, weights, *rule),
        loss_ops.loss_parts: (logits, targets, *rule),
        loss_ops.loss_gradient: (logits, targets, logsum, weights, *rule),
        loss_ops.cross_entropy: (logits.clone().requires_grad_(), targets, 0.1, 0.0),
    }.items():
        torch.library.opcheck(operator, given)


def test_compiled_whole() -> None:
    logits, targets, weights = drawn((9, 700), torch.float32)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def mean(x: Tensor) -> Tensor:
        return (cross_entropy(x * 2, targets, smoothing=0.1) * weights).sum()

    leaf, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    mean(leaf).backward()  # type: ignore[no-untyped-call]
    (cross_entropy(plain * 2, targets, smoothing=0.1) * weights).sum().backward()  # type: ignore[no-untyped-call]
    # the logarithm of a sum, about -390, is rounded between the two operators
    assert_close(leaf.grad, plain.grad, rtol=4e-5, atol=1e-7)


def test_plain_torch_says_the_same() -> None:
    logits, targets, weights = drawn((7, 301), torch.float64)
    choose(KernelsConfig(loss="reference"))
    losses, gradient = taken(logits, targets, weights, smoothing=0.2, z_loss=1e-2)
    exact = logits.requires_grad_()
    expected = cross_entropy_reference(exact, targets, smoothing=0.2, z_loss=1e-2)
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert_close(losses, expected.detach(), rtol=1e-10, atol=1e-10)
    assert_close(gradient, exact.grad, rtol=1e-10, atol=1e-10)
