"""Fused causal attention: against fp64, against torch's own, and what it refuses."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.errors import UserError
from megatron_jobs.kernels.causal_attention import causal_attention, causal_attention_reference
from megatron_jobs.kernels.causal_attention_ops import attention, attention_backward
from tests.fused import DTYPES, MACHINES_OF_ATTENTION, ROUNDING, chosen, far, machine, threads

SHAPES = [
    # Q, K, B, N, G, D
    (1, 1, 1, 1, 1, 8), (0, 3, 1, 2, 1, 16), (3, 5, 0, 2, 1, 16), (5, 7, 2, 2, 1, 24),
    (64, 64, 1, 2, 2, 64), (67, 131, 2, 4, 2, 40), (37, 193, 1, 3, 1, 128), (70, 70, 1, 1, 1, 256),
    (1, 200, 2, 2, 2, 80), (331, 331, 1, 1, 1, 8),
]  # fmt: skip


@pytest.fixture(autouse=True)
def fused() -> Iterator[None]:
    with chosen(attention="fused"):
        yield


Three = tuple[Tensor, Tensor, Tensor]


def tensors(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Three, Tensor]:
    """q, k and v, and a gradient of what comes of them."""
    queries, keys, batch, heads, groups, columns = shape
    draw = torch.Generator().manual_seed(3)
    sizes = [(queries, batch, heads, columns), *[(keys, batch, groups, columns)] * 2]
    q, k, v = (torch.randn(size, generator=draw).to(dtype).requires_grad_() for size in sizes)
    up = torch.randn(queries, batch, heads * columns, generator=draw).to(dtype)
    return (q, k, v), up


def widened(given: Three) -> Three:
    """The same in fp64, to be differentiated by."""
    q, k, v = (x.detach().double().requires_grad_() for x in given)
    return q, k, v


def firsts(kind: str, shape: tuple[int, ...]) -> Tensor | None:
    """Where documents, or windows of 21 keys, begin; or both."""
    queries, keys, batch = shape[:3]
    place = torch.arange(keys - queries, keys).expand(batch, queries)
    starts = torch.arange(batch)[:, None] * 5 + 31
    document = torch.where(place < starts, 0, starts) + (place >= starts + 9) * 9
    window = (place - 20).clamp(min=0)
    found = {"none": None, "documents": document, "window": window, "both": document.max(window)}
    first = found[kind]
    return None if first is None else first.int().contiguous()


def exact(q: Tensor, k: Tensor, v: Tensor, first: Tensor | None, scale: float) -> Tensor:
    """The formula in fp64, all scores at a time."""
    queries, keys, share = q.size(0), k.size(0), q.size(2) // k.size(2)
    k, v = (x.repeat_interleave(share, 2) for x in (k, v))
    key = torch.arange(keys)
    seen = (key <= key[keys - queries :, None])[None]
    if first is not None:
        seen = seen & (key >= first[:, :, None])
    scores = torch.einsum("qbnd,kbnd->bnqk", q, k) * scale
    weights = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1).nan_to_num()
    return torch.einsum("bnqk,kbnd->qbnd", weights, v).flatten(2)


@pytest.mark.parametrize("code", MACHINES_OF_ATTENTION)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["none", "documents", "window", "both"])
def test_values_and_gradients_are_those_of_fp64(kind: str, dtype: torch.dtype, code: str) -> None:
    for shape in SHAPES:
        given, up = tensors(shape, dtype)
        first = firsts(kind, shape)
        wide = widened(given)
        with machine(code):
            found = causal_attention(*given, first_BQ=first, scale=0.3)
            slopes = torch.autograd.grad(found, given, up)
        assert found.dtype == dtype
        assert found.is_contiguous()
        expected = exact(*wide, first, 0.3)
        assert far(found, expected) < 2 * ROUNDING[dtype], shape
        wanted = torch.autograd.grad(expected, wide, up.double())
        for slope, want in zip(slopes, wanted, strict=True):
            size = max(1.0, float(want.abs().max())) if want.numel() else 1.0
            assert far(slope / size, want / size) < 3 * ROUNDING[dtype], shape


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("before", [61, 62, 63, 64, 65, 126, 127, 128])
def test_each_key_at_an_edge_of_a_block_is_seen_or_not(before: int, dtype: torch.dtype) -> None:
    """Keys before the queries, and the first that is seen, around blocks and strips of them."""
    given, up = tensors((18, before + 18, 1, 1, 1, 8), dtype)
    wide = widened(given)
    for begin in (1, 15, 16, 17, 60, 61, 63, 64, 65):
        first = torch.full((1, 18), begin, dtype=torch.int32).minimum(torch.tensor(before)).int()
        found, expected = causal_attention(*given, first_BQ=first), exact(*wide, first, 8**-0.5)
        slopes = torch.autograd.grad(found, given, up)
        wanted = torch.autograd.grad(expected, wide, up.double())
        for a, b in zip((found, *slopes), (expected, *wanted), strict=True):
            assert far(a, b) < 2 * ROUNDING[dtype], begin


@pytest.mark.parametrize("code", MACHINES_OF_ATTENTION)
def test_torch_agrees(code: str) -> None:
    """Without a scale, which then is that of the columns; packed in one tensor, as layers do."""
    draw = torch.Generator().manual_seed(5)
    packed = torch.randn(
        97, 2, 2, 6, 32, generator=draw
    ).requires_grad_()  # S, B, G, 4 q + k + v, D
    q, k, v = packed[:, :, :, :4].reshape(97, 2, 8, 32), packed[:, :, :, 4], packed[:, :, :, 5]
    assert not k.is_contiguous()
    up = torch.randn(97, 2, 256, generator=draw)
    first = firsts("documents", (97, 97, 2))
    with machine(code):
        found = causal_attention(q, k, v, first_BQ=first)
        (slope,) = torch.autograd.grad(found, packed, up, retain_graph=True)
    expected = causal_attention_reference(q, k, v, first_BQ=first, scale=None)
    (wanted,) = torch.autograd.grad(expected, packed, up)
    assert_close(found, expected)
    assert_close(slope, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [300.0, -300.0])
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_scores_of_any_size_are_weighed(dtype: torch.dtype, scale: float) -> None:
    """Far above what a power takes, and so far apart that all but one weigh nothing."""
    given, up = tensors((40, 90, 1, 2, 1, 16), dtype)
    found = causal_attention(*given, scale=scale)
    wide = widened(given)
    expected = exact(*wide, None, scale)
    assert far(found, expected) < 100 * ROUNDING[torch.float32] + ROUNDING[dtype]
    slopes = torch.autograd.grad(found, given, up)
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_a_query_that_sees_nothing_has_zeros(dtype: torch.dtype) -> None:
    given, up = tensors((20, 20, 1, 1, 1, 8), dtype)
    first = torch.zeros(1, 20, dtype=torch.int32)
    first[0, 7] = 12
    found = causal_attention(*given, first_BQ=first)
    assert found[7].eq(0).all()
    assert found[6].ne(0).all()
    dq, dk, dv = torch.autograd.grad(found, given, up)
    assert dq[7].eq(0).all()
    assert all(slope.isfinite().all() for slope in (dq, dk, dv))


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_not_a_number_stays_one(dtype: torch.dtype) -> None:
    given, _ = tensors((20, 20, 1, 1, 1, 8), dtype)
    q, k, v = (x.detach().clone() for x in given)
    k[5, 0, 0, 3] = math.nan
    found = causal_attention(q, k, v)
    assert found[:5].isfinite().all()
    assert found[5:].isnan().all()


@pytest.mark.parametrize("code", MACHINES_OF_ATTENTION)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(dtype: torch.dtype, code: str) -> None:
    given, up = tensors((530, 530, 2, 4, 2, 24), dtype)
    found = []
    for count in (1, 2, 5):
        with machine(code), threads(count):
            out = causal_attention(*given, first_BQ=firsts("both", (530, 530, 2)))
            found.append((out, *torch.autograd.grad(out, given, up)))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.skipif(
    "avx512_bf16" not in MACHINES_OF_ATTENTION, reason="the processor has no products of bf16"
)
def test_products_of_bf16_are_as_exact_as_torch() -> None:
    """Weights and slopes are rounded to bf16, as torch rounds them; sums are fp32."""
    given, up = tensors((300, 300, 2, 4, 4, 64), torch.bfloat16)
    wide = widened(given)
    expected = exact(*wide, None, 0.125)
    wanted = [expected, *torch.autograd.grad(expected, wide, up.double())]
    away: dict[str, list[float]] = {}
    for code in ("plain", "avx512_bf16", "torch"):
        with machine("" if code == "torch" else code):
            fused = {"first_BQ": None, "scale": 0.125}
            work = causal_attention_reference if code == "torch" else causal_attention
            found = work(*given, **fused)  # type: ignore[arg-type]
            slopes = torch.autograd.grad(found, given, up)
        pairs = zip((found, *slopes), wanted, strict=True)
        away[code] = [float((a.double() - b).norm() / b.norm()) for a, b in pairs]
    for ours, torchs, best in zip(
        *(away[c] for c in ("avx512_bf16", "torch", "plain")), strict=True
    ):
        assert best < ours < 1.02 * torchs, away


def test_the_operators_are_whole() -> None:
    given, up = tensors((5, 7, 1, 2, 1, 8), torch.float32)
    first = torch.zeros(1, 5, dtype=torch.int32)
    torch.library.opcheck(attention, (*given, first, 0.5))
    q, k, v = (x.detach() for x in given)
    out, sums = attention(q, k, v, first, 0.5)
    dout = up.view_as(out)
    torch.library.opcheck(attention_backward, (dout, q, k, v, out, sums, first, 0.5))


def test_refusals_name_the_tensor() -> None:
    given, _ = tensors((5, 7, 1, 2, 1, 16), torch.float32)
    q, k, v = (x.detach() for x in given)
    first = torch.zeros(1, 5, dtype=torch.int32)
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((q.double(), k, v, None), r"^q must be float32 or .*, got float64$"),
        ((q, k.bfloat16(), v, None), r"^k must be float32, got bfloat16$"),
        ((q, k[..., ::2], v, None), r"^k must be \[7, 1, 1, 16\], got \[7, 1, 1, 8\]$"),
        ((q, k, v[1:], None), r"^v must be \[7, 1, 1, 16\], got \[6, 1, 1, 16\]$"),
        ((q.mT.contiguous().mT, k, v, None), r"^q must be contiguous, got \[5, 1, 2, 16\] strides"),
        ((q, k, v, first.long()), r"^first must be int32, got int64$"),
        ((q, k, v, first[:, 1:]), r"^first must be \[1, 5\], got \[1, 4\]$"),
        ((k, q[:, :, :1], v[:5], None), r"^queries must be at most the keys, 5, got 7$"),
    ]
    for (*inputs, where), message in cases:
        with pytest.raises(ValueError, match=message):
            attention(*inputs, where, 1.0)
    three = torch.zeros(7, 1, 3, 16)
    with pytest.raises(ValueError, match=r"^heads must be a multiple of key heads, 3, got 2$"):
        attention(q, three, three, None, 1.0)
    odd = torch.zeros(3, 1, 1, 12)
    with pytest.raises(ValueError, match=r"^columns must be 8, 16, ... or 256, got 12$"):
        attention(odd, odd, odd, None, 1.0)


def test_what_it_does_not_know() -> None:
    odd = torch.ones(3, 1, 1, 12)
    start = "^kernels.attention: fused, but it "
    apart = torch.ones(3, 1, 1, 16)[..., ::2]
    for x, message in ((odd, "knows 8, 16, ... 256 columns"), (apart, "does not know heads")):
        with pytest.raises(UserError, match=start + message):
            causal_attention(x, x, x)
    with pytest.raises(UserError, match=start + "does not know values of other columns"):
        causal_attention(odd[..., :8], odd[..., :8], odd)
    with chosen():  # one query, as when decoding, is left to torch without a word
        assert_close(causal_attention(odd[:1], odd, odd), torch.ones(1, 1, 12))
