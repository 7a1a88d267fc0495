"""Kernels for CUDA, emulated: heads, softmax, cross-entropy, experts, lists of parameters."""

import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.kernels import cuda_experts, cuda_heads, cuda_lists, cuda_loss, softmax_ops
from megatron_jobs.kernels.adam import AdamRule, AdamTensors, adam_step_reference
from megatron_jobs.kernels.experts_ops import Route
from megatron_jobs.kernels.loss import cross_entropy_reference
from megatron_jobs.kernels.loss_ops import Rule
from megatron_jobs.kernels.rope import rotate_reference, turns
from tests.emulated import drawn, emulated

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BOUND = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.fixture(scope="module", autouse=True)
def module() -> Iterator[ModuleType]:
    with emulated() as found:
        yield found


def close(found: Tensor, expected: Tensor, dtype: torch.dtype, *, wider: float = 1.0) -> None:
    assert found.dtype == dtype
    bound = wider * BOUND[dtype]
    assert_close(found.double(), expected.double(), rtol=bound, atol=bound)


ROPES = [(5, 2, 3, 4, 8), (3, 1, 2, 32, 64), (7, 2, 1, 13, 31), (2, 3, 40, 16, 48), (0, 2, 3, 2, 4)]
"""S, B, N, F, D."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("shape", ROPES)
def test_heads_turn_and_turn_back(
    shape: tuple[int, ...], offset: int, interleaved: bool, dtype: torch.dtype
) -> None:
    positions, sequences, heads, frequencies, columns = shape
    wide = drawn(positions, sequences, 3 * heads, columns + 16, dtype=dtype)
    x = wide[:, :, heads : 2 * heads, offset : columns + offset]
    angles = 9 * drawn(positions, frequencies)
    cos, sin = (t.to(dtype) for t in turns(angles, magnitude=1.0, interleaved=interleaved))
    y = cuda_heads.rope(x, cos, sin, interleaved, False)
    expected = rotate_reference(x.double(), angles, magnitude=1.0, interleaved=interleaved)
    close(y, expected, dtype, wider=2)
    close(cuda_heads.rope(y, cos, sin, interleaved, True), x, dtype, wider=4)


SCORES = [
    (1, 1, 1, 1),
    (2, 3, 5, 7),
    (1, 2, 8, 64),
    (2, 2, 3, 130),
    (1, 1, 2, 4096),
    (1, 1, 2, 2500),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SCORES)
@pytest.mark.parametrize("kind", ["plain", "causal", "mask", "mask of queries", "cap causal"])
def test_softmax_is_that_of_torch(shape: tuple[int, ...], kind: str, dtype: torch.dtype) -> None:
    scores, dweights = drawn(*shape, dtype=dtype), drawn(*shape, dtype=dtype, seed=2)
    cap = 1.5 if "cap" in kind else 0.0
    allowed = None
    if "mask" in kind:
        own = (1, 1, *shape[2:]) if "queries" in kind else (shape[0], 1, *shape[2:])
        allowed = drawn(*own, seed=3) > -0.5
        allowed[..., 0] = True
    exact = scores.double().requires_grad_()
    whole = exact * 0.7
    whole = whole if cap == 0 else cap * torch.tanh(whole / cap)
    hidden = torch.zeros(shape, dtype=torch.bool) if allowed is None else ~allowed.expand(shape)
    if "causal" in kind:
        hidden = hidden | ~torch.ones(shape[2:]).bool().tril(shape[3] - shape[2])
    expected = whole.masked_fill(hidden, -torch.inf).softmax(-1)
    given = None if allowed is None else allowed.expand(shape)
    weights = cuda_heads.softmax(scores, given, 0.7, cap, "causal" in kind)
    close(weights, expected, dtype)
    found = cuda_heads.softmax_backward(dweights, scores, weights, 0.7, cap, "causal" in kind)
    (gradient,) = torch.autograd.grad(expected, exact, dweights.double())
    close(found, gradient, dtype, wider=2)


def test_a_query_that_sees_nothing_has_no_weights() -> None:
    allowed = torch.zeros(1, 1, 2, 3, dtype=torch.bool)
    allowed[..., 1, :] = True
    weights = cuda_heads.softmax(torch.ones(1, 1, 2, 3), allowed, 1.0, 0.0, False)
    assert weights[0, 0, 0].isnan().all()
    assert_close(weights[0, 0, 1], torch.full((3,), 1 / 3))


@pytest.mark.parametrize("shape", [(1, 2, 6, 5), (1, 1, 9, 64), (1, 2, 5, 520), (1, 1, 4, 2600)])
@pytest.mark.parametrize("kind", ["mask", "mask causal", "cap causal"])
def test_queries_that_see_nothing_are_as_on_the_cpu(shape: tuple[int, ...], kind: str) -> None:
    """Weights and gradients, beside rows with a NaN or an infinity among seen and unseen scores."""
    scores, dweights = drawn(*shape), drawn(*shape, seed=2)
    allowed = (drawn(*shape, seed=3) > 0.3) if "mask" in kind else None
    if allowed is not None:
        allowed[..., [1, 3], :] = False
        allowed[..., 0] |= torch.arange(shape[2]) % 2 == 0
    scores[..., 2, 0] = torch.nan
    scores[..., 3, -1] = torch.inf
    dweights[..., 0, -1] = torch.nan
    cap, causal = 2.0 if "cap" in kind else 0.0, "causal" in kind
    weights = cuda_heads.softmax(scores, allowed, 0.5, cap, causal)
    found = cuda_heads.softmax_backward(dweights, scores, weights, 0.5, cap, causal)
    scores, dweights = scores.cpu(), dweights.cpu()
    mask = None if allowed is None else allowed.cpu()
    wanted = softmax_ops.softmax_on_cpu(scores, mask, 0.5, cap, causal)
    assert_close(weights.cpu(), wanted, equal_nan=True)
    slope = softmax_ops.softmax_backward_on_cpu(dweights, scores, wanted, 0.5, cap, causal)
    assert_close(found.cpu(), slope, equal_nan=True)
    if allowed is not None:
        assert wanted[..., 1, :].isnan().all()
        assert not slope[..., 1, :].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 7, 64, 1000, 9001])
def test_losses_and_gradients_in_place(columns: int, dtype: torch.dtype) -> None:
    logits = 4 * drawn(6, columns, dtype=dtype)
    targets = (drawn(6).abs() * 1e6).long() % columns
    targets[2] = -100
    weights = torch.tensor([1.0, 0.5, 1.0, 0.0, 2.0, 1.0])
    exact = logits.double().requires_grad_()
    expected = cross_entropy_reference(exact, targets, smoothing=0.1, z_loss=0.01)
    (gradient,) = torch.autograd.grad(expected, exact, weights.double())
    rule = Rule(vocab=columns, smoothing=0.1, z_loss=0.01)
    losses = cuda_loss.loss_whole(logits, targets, weights, *rule)
    close(losses, expected.detach(), torch.float32)
    close(logits, gradient, dtype)


@pytest.mark.parametrize("cap", [0.0, 5.0])
def test_parts_of_a_vocabulary_make_the_whole(cap: float) -> None:
    whole = 6 * drawn(5, 96)
    targets = torch.tensor([0, 40, 95, -100, 63])
    weights = torch.ones(5)
    rule = Rule(vocab=96, cap=cap, smoothing=0.2, z_loss=0.02)
    pieces = [piece.contiguous() for piece in whole.split(32, dim=1)]
    rules = [rule._replace(first=32 * n) for n in range(3)]
    exact = whole.double().requires_grad_()
    bent = exact if cap == 0 else cap * torch.tanh(exact / cap)
    expected = cross_entropy_reference(bent, targets, smoothing=0.2, z_loss=0.02)
    (gradient,) = torch.autograd.grad(expected.sum(), exact)
    every = torch.stack(
        [cuda_loss.loss_parts(x, targets, *own) for x, own in zip(pieces, rules, strict=True)]
    )
    most = every[:, 0].amax(0)
    logsum = most + (every[:, 1] * (every[:, 0] - most).exp()).sum(0).log()
    for piece, own in zip(pieces, rules, strict=True):
        cuda_loss.loss_gradient(piece, targets, logsum, weights, *own)
    close(torch.cat(pieces, 1), gradient, torch.float32)
    assert_close(every[:, 2].sum(0)[4], bent[4, 63].float().detach())


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_columns_have_no_gradient(dtype: torch.dtype) -> None:
    logits, targets = drawn(4, 100, dtype=dtype), torch.tensor([0, 3, 59, 7])
    logits[:, 60:] = -torch.inf
    exact = logits.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact, targets, reduction="none")
    (gradient,) = torch.autograd.grad(expected.sum(), exact)
    losses = cuda_loss.loss_whole(logits, targets, torch.ones(4), *Rule(vocab=100))
    close(losses, expected.detach(), torch.float32)
    close(logits, gradient, dtype)
    assert not logits[:, 60:].any()


def test_a_target_that_is_no_id_makes_a_nan() -> None:
    rule = Rule(vocab=8)
    losses = cuda_loss.loss_whole(drawn(3, 8), torch.tensor([1, 8, -1]), torch.ones(3), *rule)
    assert losses.isnan().tolist() == [False, True, True]


def routed(logits: Tensor, route: Route, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """The formulas in fp64."""
    scores = logits.sigmoid() if route.sigmoid else logits.softmax(-1)
    chosen = (scores if bias is None else scores + bias).topk(route.visits).indices
    weights = scores.gather(1, chosen)
    if route.normalized:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return weights * route.scale, chosen


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (9, 8, 2), (5, 128, 8), (3, 300, 6), (2, 512, 512)])
@pytest.mark.parametrize("route", [Route(0), Route(0, sigmoid=True), Route(0, False, True, 2.5)])
def test_experts_are_chosen(sizes: tuple[int, int, int], route: Route, dtype: torch.dtype) -> None:
    tokens, experts, visits = sizes
    route = route._replace(visits=visits)
    logits, bias = drawn(tokens, experts, dtype=dtype), 0.01 * drawn(experts, seed=2)
    exact = logits.double().requires_grad_()
    expected, chosen = routed(exact, route, bias.double())
    weights, found = cuda_experts.choose(logits, route, bias)
    if dtype == torch.float32:  # others have equal logits
        assert torch.equal(found, chosen)
    scores = torch.zeros(tokens, experts).double().scatter(1, chosen, expected.detach())
    close(
        weights, scores.gather(1, found), torch.float32, wider=2 if dtype == torch.float32 else 99
    )
    dweights = drawn(tokens, visits, seed=3)
    (gradient,) = torch.autograd.grad(expected, exact, dweights.double())
    close(cuda_experts.choose_backward(dweights, logits, chosen, route), gradient, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 40, 1031, 4096])
def test_tokens_go_to_experts_and_come_back(columns: int, dtype: torch.dtype) -> None:
    x, dy = drawn(6, columns, dtype=dtype), drawn(6, columns, dtype=dtype, seed=2)
    places = torch.tensor([[0, 7], [3, 1], [2, -1], [9, 8], [4, 6], [-1, -1]])
    source = torch.full((11,), -1)
    source[places[places >= 0]] = torch.arange(6).repeat_interleave(2)[places.flatten() >= 0]
    gathered = cuda_experts.gather_rows(x, source)
    here = source >= 0
    assert torch.equal(gathered[here], x[source[here]])
    assert not gathered[~here].any()
    weights = drawn(6, 2, seed=3)
    exact, exact_weights = gathered.double().requires_grad_(), weights.double().requires_grad_()
    rows = torch.where((places >= 0)[..., None], exact[places.clamp(min=0)], 0.0)
    expected = (exact_weights[..., None] * rows).sum(1)
    close(cuda_experts.combine(gathered, places, weights), expected.detach(), dtype)
    dx, dweights = cuda_experts.combine_backward(dy, gathered, places, weights)
    gradients = torch.autograd.grad(expected, (exact, exact_weights), dy.double())
    close(dx, gradients[0], dtype)
    assert dweights is not None
    close(dweights, gradients[1], torch.float32, wider=20)


SIZES = [1, 0, 4, 70001, 13, *([3] * 50), 65536, 2 * 65536 + 1]


def parameters(dtype: torch.dtype, rounded: torch.dtype | None) -> AdamTensors:
    """Lists of tensors; every other one begins where no pack does."""
    lists = [
        [drawn(size + n % 2, seed=n + 100 * k)[n % 2 :] for n, size in enumerate(SIZES)]
        for k in range(4)
    ]
    lists[3] = [tensor.square() for tensor in lists[3]]
    gradients = [tensor.to(dtype) for tensor in lists[1]]
    copies = [] if rounded is None else [tensor.to(rounded) for tensor in lists[0]]
    return AdamTensors(
        parameters=lists[0], gradients=gradients, first=lists[2], second=lists[3], rounded=copies
    )


@pytest.mark.parametrize(
    ("dtype", "rounded"),
    [(torch.float32, None), (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float16)],
)
def test_adam_moves_every_parameter(dtype: torch.dtype, rounded: torch.dtype | None) -> None:
    rule = AdamRule(lr=0.1, beta1=0.9, beta2=0.95, eps=1e-8, decay=0.1, step=3, factor=0.5)
    found, expected = parameters(dtype, rounded), parameters(dtype, rounded)
    cuda_lists.adam_step(found, rule, factor=torch.tensor([2.0]), stop=torch.zeros(1))
    cuda_lists.adam_step(found, rule, stop=torch.ones(1))
    adam_step_reference(
        expected, AdamRule(lr=0.1, beta1=0.9, beta2=0.95, eps=1e-8, decay=0.1, step=3)
    )
    for name in ("parameters", "first", "second"):
        for own, other in zip(getattr(found, name), getattr(expected, name), strict=True):
            assert_close(own, other, rtol=2e-5, atol=1e-6)
    for own, parameter in zip(found.rounded, found.parameters, strict=bool(rounded)):
        assert torch.equal(own, parameter.to(own.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_scale_and_check_see_every_number(dtype: torch.dtype) -> None:
    tensors = list(parameters(dtype, None).gradients)
    expected = sum(float(tensor.double().square().sum()) for tensor in tensors) ** 0.5
    assert_close(float(cuda_lists.norm_of(tensors)), expected, rtol=1e-6, atol=0.0)
    assert torch.equal(cuda_lists.norm_of(tensors), cuda_lists.norm_of(tensors))
    before = [tensor.clone() for tensor in tensors]
    bad = torch.zeros(1)
    cuda_lists.scale_all(tensors, 0.5, by=torch.tensor([4.0]), bad=bad)
    assert all(torch.equal(own, 2 * old) for own, old in zip(tensors, before, strict=True))
    assert bad.item() == 0
    for place, value in ((3, torch.inf), (4, torch.nan)):
        tensors[place][-1] = value
        found = torch.zeros(1)
        cuda_lists.find_bad(tensors, found)
        assert found.item() == 1
        tensors[place][-1] = 0


FAKE_CUBLAS = r"""
extern "C" int cublasCreate_v2(void** handle) { *handle = handle; return 0; }
extern "C" int cublasSetStream_v2(void*, void*) { return 0; }
extern "C" int cublasGemmEx(void*, int ta, int tb, int m, int n, int k, const float* alpha,
    const float* a, int at, int lda, const float* b, int bt, int ldb, const float* beta, float* c,
    int ct, int ldc, int compute, int algorithm) {
  if (ta != 0 || tb != 1 || at || bt || ct || compute != 68 || algorithm != -1) return 7;
  for (int i = 0; i < m; ++i) for (int j = 0; j < n; ++j) {
    double sum = 0;
    for (int l = 0; l < k; ++l) sum += double(a[i + l * lda]) * b[j + l * ldb];
    c[i + j * ldc] = *alpha * sum + *beta * c[i + j * ldc];
  }
  return 0;
}
"""


def test_weight_gradients_are_added_by_the_cublas_that_is_loaded(
    tmp_path: Path, module: ModuleType
) -> None:
    one = dict.fromkeys(("rows", "outputs", "inputs"), 1)
    with pytest.raises(RuntimeError, match=r"add_product: use_cublas was not called"):
        module.add_product(1, 1, 1, **one, dtype=0, sum_dtype=0, first=False, stream=0)
    with pytest.raises(RuntimeError, match=r"cuBLAS: /nowhere/libcublas.so: cannot open"):
        module.use_cublas("/nowhere/libcublas.so")
    (tmp_path / "cublas.cpp").write_text(FAKE_CUBLAS)
    library = tmp_path / "libcublas.so.13"
    compiler = ["g++", "-shared", "-fPIC", str(tmp_path / "cublas.cpp"), "-o", str(library)]
    subprocess.run(compiler, check=True)
    ctypes.CDLL(str(library))
    assert cuda_lists.cublas_among(Path("/proc/self/maps").read_text()) == str(library)
    dy, x, total = drawn(5, 3), drawn(5, 4, seed=2), drawn(3, 4, seed=3)
    expected = total + dy.t() @ x
    cuda_lists.take_cublas.cache_clear()
    cuda_lists.add_product(dy, x, total)
    assert_close(total, expected)
    cuda_lists.add_product(dy, x, total, first=True)
    assert_close(total, dy.t() @ x)
    cuda_lists.add_product(dy[:0], x[:0], total)
    assert_close(total, dy.t() @ x)
    cuda_lists.add_product(dy[:0], x[:0], total, first=True)
    assert not total.any()
    with pytest.raises(RuntimeError, match="cublasGemmEx: cuBLAS says 7"):
        cuda_lists.add_product(dy.bfloat16(), x.bfloat16(), total)
    with pytest.raises(ValueError, match=r"sum must be \[3, 4\], got \[4, 3\]"):
        cuda_lists.add_product(dy, x, total.t())
