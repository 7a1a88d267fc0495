"""Losses over a vocabulary that is cut over ranks, and the model's with and without fused forms."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.kernels import Choice, KernelsConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.linear_loss import linear_cross_entropy
from megatron_jobs.kernels.loss import cross_entropy, cross_entropy_reference
from megatron_jobs.kernels.loss_ops import Terms
from megatron_jobs.kernels.native import built
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.step import build_engine, evaluate_loss, train_step
from tests.batches import micro_batches
from tests.ranks import on_ranks, ranks

if built("_kernels") is None:
    pytest.skip("megatron_jobs._kernels is not built", allow_module_level=True)

TERMS = Terms(smoothing=0.1, z_loss=1e-3)


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Logits [9, 1400], targets of which one does not count, weights."""
    draw = torch.Generator().manual_seed(3)
    targets = torch.randint(1400, (9,), generator=draw)
    targets[4] = -100
    return 5 * torch.randn(9, 1400, generator=draw) - 90, targets, torch.rand(9, generator=draw)


@pytest.mark.parametrize("form", ["fused", "reference"])
@ranks(2)
def test_columns_on_two_ranks_are_those_of_one(rank: Rank, form: Choice) -> None:
    open_groups(Mesh(tensor=2), seed=1)
    choose(KernelsConfig(loss=form))
    group = torch.distributed.group.WORLD
    logits, targets, weights = drawn()
    own = logits.chunk(2, -1)[rank.index].contiguous().requires_grad_()
    smoothing, z_loss = TERMS[1:]
    losses = cross_entropy(
        own * 1, targets, weights_R=weights, group=group, smoothing=smoothing, z_loss=z_loss
    )
    (losses * weights).sum().backward()  # type: ignore[no-untyped-call]
    exact = logits.double().requires_grad_()
    expected = cross_entropy_reference(exact, targets, smoothing=smoothing, z_loss=z_loss)
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert_close(losses.double(), expected, rtol=1e-6, atol=1e-5)
    assert own.grad is not None
    assert exact.grad is not None
    assert_close(own.grad.double(), exact.grad.chunk(2, -1)[rank.index], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("known", [True, False], ids=["weights", "twice"])
@ranks(2)
def test_a_cut_layer_hands_on_its_share(rank: Rank, known: bool) -> None:
    open_groups(Mesh(tensor=2), seed=1)
    choose(KernelsConfig(loss="fused"))
    group = torch.distributed.group.WORLD
    draw = torch.Generator().manual_seed(5)
    hidden, weight = torch.randn(9, 16, generator=draw), torch.randn(1400, 16, generator=draw)
    _, targets, weights = drawn()
    own = [hidden.clone().requires_grad_(), weight.chunk(2)[rank.index].clone().requires_grad_()]
    told = weights if known else None
    losses = linear_cross_entropy(
        *own, targets, weights_R=told, group=group, terms=TERMS._replace(cap=6.0), rows=4
    )
    (losses * weights).sum().backward()  # type: ignore[no-untyped-call]
    whole = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    logits = torch.tanh(whole[0] @ whole[1].t() / 6) * 6
    expected = cross_entropy_reference(
        logits, targets, smoothing=TERMS.smoothing, z_loss=TERMS.z_loss
    )
    (expected * weights).sum().backward()  # type: ignore[no-untyped-call]
    assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    total, share = own[0].grad, own[1].grad
    torch.distributed.all_reduce(total, group=group)
    assert whole[1].grad is not None
    assert_close(total, whole[0].grad, rtol=1e-4, atol=1e-5, check_dtype=False)
    theirs = whole[1].grad.chunk(2)[rank.index]
    assert_close(share, theirs, rtol=1e-4, atol=1e-5, check_dtype=False)


TIED = ModelConfig(
    layers=2, hidden=64, heads=4, ffn=128, vocab_size=503, seq_len=32, tied=True, logit_softcap=3.0
)
BIASED = TIED.model_copy(update={"tied": False, "output_bias": True, "logit_softcap": None})
OPTIM = OptimConfig(lr=0.01, warmup_steps=2, decay_steps=4)
LAYOUTS: dict[str, tuple[int, ModelConfig, Mesh]] = {
    "tied, one rank": (1, TIED, Mesh()),
    "tied, tensor 2": (2, TIED, Mesh(tensor=2)),
    "tied, pipeline 2": (2, TIED, Mesh(pipeline=2)),
    "bias, tensor 2, sequence, overlap": (
        2,
        BIASED,
        Mesh(tensor=2, sequence_parallel=True, overlap=True),
    ),
}


def learn(
    model: ModelConfig, mesh: Mesh, form: Choice, precision: Precision = "fp32"
) -> Callable[[Rank], list[float]]:
    """What a rank does: losses and norms of three steps, then the loss of another batch."""

    def run(rank: Rank) -> list[float]:
        open_groups(mesh, seed=1)
        choose(KernelsConfig(loss=form))
        engine = build_engine(model, mesh, OPTIM, precision=precision, seed=3)
        steps = [train_step(engine, micro_batches(n), n) for n in range(1, 4)]
        held_out = evaluate_loss(engine, micro_batches(99))
        return [*(s.loss for s in steps), *(s.grad_norm for s in steps), held_out.mean]

    return run


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_model_learns_as_it_does_by_plain_torch(name: str) -> None:
    world, model, mesh = LAYOUTS[name]
    fused, plain = (on_ranks(world, learn(model, mesh, form)) for form in ("fused", "reference"))
    for mine, theirs in zip(fused, plain, strict=True):
        assert_close(mine, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_as_by_plain_torch(precision: Precision) -> None:
    fused, plain = (
        on_ranks(1, partial(learn(TIED, Mesh(), form, precision)))[0]
        for form in ("fused", "reference")
    )
    assert_close(fused, plain, rtol=0.01, atol=0.01)
