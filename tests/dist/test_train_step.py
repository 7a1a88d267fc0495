"""What a step does when numbers go wrong, and what it reports."""

import math

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.parallel.cures import unwrap
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.batch import MicroBatch
from megatron_jobs.train.step import Engine, build_engine, evaluate_loss, train_step
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks, ranks

MODEL = ModelConfig(layers=2, hidden=32, heads=2, ffn=64, vocab_size=VOCAB, seq_len=SEQ_LEN)
OPTIM = OptimConfig(lr=1e-2, min_lr=1e-3, decay_steps=10)


def engine_on(mesh: Mesh, optim: OptimConfig = OPTIM) -> Engine:
    open_groups(mesh, seed=1)
    return build_engine(MODEL, mesh, optim, precision="fp32", seed=3)


def whole_state(engine: Engine) -> list[Tensor]:
    """Copies of all that a step moves on this rank."""
    tensors = [p.detach().clone() for p in unwrap(engine.chunks[0]).parameters()]
    for part in engine.optimizer.chained_optimizers:
        for state in part.optimizer.state.values():
            tensors += [value.clone() for value in state.values()]
    return tensors


@ranks(2)
def test_a_gradient_that_is_no_number_moves_nothing_anywhere(rank: Rank) -> None:
    """One rank's NaN skips the step on both, bit for bit; the next goes on."""
    engine = engine_on(Mesh())
    train_step(engine, micro_batches(1), 1)
    before = whole_state(engine)
    spoilt = unwrap(engine.chunks[0]).decoder.layers[0].mlp.linear_fc1.weight
    factor = math.nan if rank.index == 1 else 1.0
    hook = spoilt.register_hook(lambda gradient: gradient * factor)
    result = train_step(engine, micro_batches(2), 2)
    hook.remove()
    assert result.skipped
    assert math.isnan(result.grad_norm)
    assert math.isfinite(result.loss)
    for now, then in zip(whole_state(engine), before, strict=True):
        assert torch.equal(now, then)
    after = train_step(engine, micro_batches(2), 2)
    assert not after.skipped
    assert after.loss == result.loss


@ranks(2)
def test_a_batch_without_targets_moves_nothing(rank: Rank) -> None:
    engine = engine_on(Mesh())
    before = whole_state(engine)
    blank = [
        MicroBatch(**{**batch, "loss_mask": 0 * batch["loss_mask"]}) for batch in micro_batches(1)
    ]
    result = train_step(engine, blank, 1)
    assert result.skipped
    assert result.tokens == 0
    assert math.isnan(result.loss)
    assert all(map(torch.equal, whole_state(engine), before))


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(overlap=True), Mesh(pipeline=2), Mesh(context=2)])
def test_evaluation_moves_nothing_and_equals_the_next_steps_loss(mesh: Mesh) -> None:
    def run(rank: Rank) -> tuple[float, ...]:
        engine = engine_on(mesh)
        train_step(engine, micro_batches(1), 1)
        looked = evaluate_loss(engine, micro_batches(2))
        again = evaluate_loss(engine, micro_batches(2))
        stepped = train_step(engine, micro_batches(2), 2)
        assert looked == again
        assert looked.tokens == stepped.tokens
        return looked.mean, stepped.loss

    for looked, stepped in on_ranks(2, run):
        assert looked == stepped


@ranks(2)
def test_every_rank_reports_the_same_and_counts_what_counts(rank: Rank) -> None:
    engine = engine_on(Mesh())
    own = list(micro_batches(1))
    result = train_step(engine, own, 1)
    counted = torch.stack([batch["loss_mask"].sum() for batch in own]).sum()
    dist.all_reduce(counted)
    assert result.tokens == int(counted)
    both: list[object] = [None, None]
    dist.all_gather_object(both, result)
    assert both[0] == both[1]


@ranks(2)
def test_dropout_leaves_what_tensor_ranks_share_equal(rank: Rank) -> None:
    """Other numbers dropped from what both hold would let them drift apart."""
    open_groups(Mesh(tensor=2), seed=1)
    model = MODEL.model_copy(update={"dropout": 0.2, "attention_dropout": 0.2})
    engine = build_engine(model, Mesh(tensor=2), OPTIM, precision="fp32", seed=3)
    for step in range(1, 4):
        train_step(engine, micro_batches(step), step)
    norm = unwrap(engine.chunks[0]).decoder.final_layernorm.weight.detach()
    other = norm.clone()
    dist.broadcast(other, src=0)
    assert torch.equal(norm, other)
    first, again = (evaluate_loss(engine, micro_batches(9)) for _ in range(2))
    assert first == again, "nothing is dropped in evaluation"


@ranks(1)
def test_clipping_scales_all_gradients_to_the_given_norm(rank: Rank) -> None:
    """SGD would show it at once; Adam's first moment does too: it is (1 - beta1) x gradient."""
    engine = engine_on(Mesh(), OPTIM.model_copy(update={"clip": 0.25}))
    result = train_step(engine, micro_batches(1), 1)
    assert result.grad_norm > 0.25
    states = engine.optimizer.chained_optimizers[0].optimizer.state.values()
    moments = torch.cat([state["exp_avg"].flatten() for state in states])
    assert_close(moments.norm() / (1 - OPTIM.beta1), torch.tensor(0.25), rtol=1e-4, atol=0)


@ranks(1)
def test_norms_keep_their_weight_when_decay_is_all_there_is(rank: Rank) -> None:
    """With a gradient that hardly moves anything, a step shrinks matrices by lr x decay alone."""
    optim = OptimConfig(lr=0.5, min_lr=0.5, decay_steps=10, weight_decay=0.1, eps=1e8, clip=0)
    engine = engine_on(Mesh(), optim)
    before = {n: p.detach().clone() for n, p in unwrap(engine.chunks[0]).named_parameters()}
    train_step(engine, micro_batches(1), 1)
    for name, now in unwrap(engine.chunks[0]).named_parameters():
        share = 1 - 0.5 * 0.1 if now.dim() > 1 else 1.0
        assert_close(now.detach(), share * before[name], msg=name)
