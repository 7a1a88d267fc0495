"""The core of attention against a loop over heads and positions. Shapes as in the module."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.errors import UserError
from megatron_jobs.model import attention as module
from megatron_jobs.model.attention import CausalAttention, stretches
from megatron_jobs.model.build import core_config
from tests.fused import chosen

ALONE = SimpleNamespace(cp=SimpleNamespace(size=lambda: 1, rank=lambda: 0))
MODEL = ModelConfig(
    layers=1, hidden=32, heads=4, kv_heads=2, vocab_size=128, seq_len=16, position="learned"
)


def attention(model: ModelConfig = MODEL) -> CausalAttention:
    config = core_config(model, Mesh(), "fp32")
    return CausalAttention(config, model=model, layer_number=1, pg_collection=ALONE)


def drawn(queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(4)
    q = torch.randn(queries, 3, 4, 8, generator=draw)
    k, v = torch.randn(2, keys, 3, 2, 8, generator=draw)
    return q, k, v


def slowly(
    q: Tensor, k: Tensor, v: Tensor, forbidden: Tensor | None = None, *, model: ModelConfig = MODEL
) -> Tensor:
    """One query, one sequence and one head at a time."""
    queries, batch, heads, size = q.shape
    keys, share = k.size(0), heads // k.size(2)
    out = torch.zeros(queries, batch, heads * size)
    for t in range(queries):
        place = t + keys - queries
        seen = [s for s in range(keys) if place - (model.window or keys) < s <= place]
        seen = [s for s in seen if forbidden is None or not forbidden[t, s]]
        for b, n in itertools.product(range(batch), range(heads)):
            score = k[seen, b, n // share] @ q[t, b, n]
            score = score * (model.attention_scale or 1 / math.sqrt(size))
            if model.attention_softcap:
                score = model.attention_softcap * torch.tanh(score / model.attention_softcap)
            mixed = score.softmax(0) @ v[seen, b, n // share]
            out[t, b, n * size : (n + 1) * size] = mixed
    return out


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (7, 7), (1, 7), (3, 7)])
def test_queries_are_the_last_positions(queries: int, keys: int) -> None:
    q, k, v = drawn(queries, keys)
    assert_close(attention()(q, k, v), slowly(q, k, v))


def test_a_mask_forbids_more() -> None:
    q, k, v = drawn(4, 6)
    forbidden = torch.zeros(4, 6, dtype=torch.bool)
    forbidden[:, 0] = True
    forbidden[2, 3] = True
    assert_close(attention()(q, k, v, forbidden[None, None]), slowly(q, k, v, forbidden))


def test_documents_see_only_themselves() -> None:
    """Also of the last queries alone, as when decoding; each sequence has its own documents."""
    documents = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 1], [3, 3, -1, -1, -1, -1]])
    for queries in (6, 4):
        q, k, v = drawn(queries, 6)
        found = attention()(q, k, v, documents.int())
        for row, numbers in enumerate(documents):
            forbidden = numbers[6 - queries :, None] != numbers
            one = slice(row, row + 1)
            assert_close(found[:, one], slowly(q[:, one], k[:, one], v[:, one], forbidden))


@pytest.mark.parametrize("stretch", [1, 3, 5, 100])
def test_stretches_of_documents_are_run_apart(
    stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients are those of one mask over everything, however it is cut."""
    monkeypatch.setattr(module, "STRETCH", stretch)
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 3, 3, 3, -1, -1], [0] * 11, [0] + [1] * 10])
    forbidden = documents[:, None, :, None] != documents[:, None, None, :]
    inputs = [x.requires_grad_() for x in drawn(11, 11)]
    found, wanted = (attention()(*inputs, mask) for mask in (documents.int(), forbidden))
    assert_close(found, wanted)
    for got, want in zip(
        *(torch.autograd.grad(out.square().sum(), inputs) for out in (found, wanted)), strict=True
    ):
        assert_close(got, want)


def test_stretches_are_whole_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRETCH", 3)
    documents = torch.tensor([0, 0, 1, 1, 2, 3, 3, 3, 4, 5])
    assert list(stretches(documents)) == [(0, 4), (4, 8), (8, 10)]
    assert list(stretches(documents[:1])) == [(0, 1)]


def test_gradients_reach_every_input() -> None:
    inputs = [x.double().requires_grad_() for x in drawn(2, 3)]
    assert torch.autograd.gradcheck(attention(), inputs)


NEAR = MODEL.model_copy(update={"window": 3})
CAPPED = MODEL.model_copy(update={"attention_softcap": 0.7, "attention_scale": 0.9})
BOTH = CAPPED.model_copy(update={"window": 2})
ODD = pytest.mark.parametrize("model", [NEAR, CAPPED, BOTH], ids=["window", "cap", "both"])


@ODD
@pytest.mark.parametrize("stretch", [1, 4, 100])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (11, 11), (1, 9), (5, 9)])
def test_windows_and_caps(
    model: ModelConfig, queries: int, keys: int, stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many queries are run at a time, and with a cache as without."""
    monkeypatch.setattr(module, "STRETCH", stretch)
    q, k, v = drawn(queries, keys)
    assert_close(attention(model)(q, k, v), slowly(q, k, v, model=model))


@ODD
@pytest.mark.parametrize("stretch", [1, 4, 100])
def test_windows_and_caps_within_documents(
    model: ModelConfig, stretch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given as numbers or as a mask; values and gradients."""
    monkeypatch.setattr(module, "STRETCH", stretch)
    documents = torch.tensor([[0] * 5 + [1] * 6, [0] * 11, [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, -1]])
    forbidden = documents[:, None, :, None] != documents[:, None, None, :]
    inputs = [x.requires_grad_() for x in drawn(11, 11)]
    found = [attention(model)(*inputs, mask) for mask in (documents.int(), forbidden)]
    one = torch.cat(
        [
            slowly(*(x[:, row : row + 1] for x in inputs), forbidden[row, 0], model=model)
            for row in range(3)
        ],
        dim=1,
    )
    wanted = torch.autograd.grad(one.square().sum(), inputs)
    for out in found:
        assert_close(out, one)
        for got, want in zip(torch.autograd.grad(out.square().sum(), inputs), wanted, strict=True):
            assert_close(got, want)


@pytest.mark.parametrize("model", [MODEL, NEAR], ids=["far", "window"])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (41, 41), (3, 41)])
def test_the_fused_form_is_the_same(model: ModelConfig, queries: int, keys: int) -> None:
    """With documents and without; values and gradients."""
    bounds = torch.tensor([[5, 30], [1, 2], [17, 40]])
    documents = (torch.arange(keys) >= bounds[:, :, None]).sum(1).int()
    inputs = [x.requires_grad_() for x in drawn(queries, keys)]
    for mask in (None, documents):
        results = []
        for form in ("reference", "fused"):
            with chosen(attention=form):
                out = attention(model)(*inputs, mask)
            results.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
        for found, wanted in zip(*results, strict=True):
            assert_close(found, wanted)


def test_what_the_fused_form_does_not_know() -> None:
    inputs = drawn(5, 5)
    dropping = MODEL.model_copy(update={"attention_dropout": 0.5})
    forbidden = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    cases = [
        (CAPPED, None, "capped scores"), (dropping, None, "dropout, whose"),
        (MODEL, forbidden, "a mask of its own"),
    ]  # fmt: skip
    for model, mask, what in cases:
        with (
            chosen(attention="fused"),
            pytest.raises(UserError, match=f"attention: fused, but it does not know {what}"),
        ):
            attention(model)(*inputs, mask)


def test_a_window_spares_most_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call sees as many keys as its queries and its window need, not all of them."""
    monkeypatch.setattr(module, "STRETCH", 4)
    sizes = []
    sdpa = module.functional.scaled_dot_product_attention

    def counted(q: Tensor, k: Tensor, v: Tensor, **words: object) -> Tensor:
        sizes.append((q.size(2), k.size(2)))
        return sdpa(q, k, v, **words)

    monkeypatch.setattr(module.functional, "scaled_dot_product_attention", counted)
    attention(NEAR)(*drawn(11, 11))
    attention(NEAR)(*drawn(1, 11))
    assert sizes == [(4, 4), (4, 6), (3, 5), (1, 3)]


def test_layers_differ_in_window_and_angles() -> None:
    model = MODEL.model_copy(
        update={
            "position": "rope", "layers": 2, "window": 3, "full_layers": (1,),
            "local_rope_base": 50, "rope_scaling": RopeScaling(kind="linear", factor=4.0),
        }
    )  # fmt: skip
    config = core_config(model, Mesh(), "fp32")
    near, far = (
        CausalAttention(config, model=model, layer_number=number, pg_collection=ALONE)
        for number in (1, 2)
    )
    assert (near.window, far.window) == (3, None)
    assert near.rope is not None
    assert far.rope is not None
    assert (near.rope.base, near.rope.scaling) == (50, None)
    assert (far.rope.base, far.rope.scaling) == (10000, model.rope_scaling)


def test_angles_know_the_distance_alone() -> None:
    """Scores after turning are those of any other pair of positions as far apart."""
    core = attention(MODEL.model_copy(update={"position": "rope"}))
    x = torch.randn(1, 1, 1, 8, generator=torch.Generator().manual_seed(2)).expand(9, 1, 4, 8)
    q, k = core._turned(x, x[:, :, :2])
    scores = torch.einsum("qbnd,kbnd->qk", q[:, :, :2], k)
    for distance in range(9):
        diagonal = scores.diagonal(-distance)
        assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert scores[5, 0] != scores[5, 5]


def test_no_dropout_when_evaluating() -> None:
    core = attention(MODEL.model_copy(update={"attention_dropout": 0.5})).eval()
    q, k, v = drawn(5, 5)
    assert_close(core(q, k, v), slowly(q, k, v))
