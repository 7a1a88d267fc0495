"""A slow rank is told from one that waits for it, and keeping time changes no number."""

import time

import pytest
import torch
import torch.distributed as dist

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.parallel.cures import unwrap
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.step import Engine, build_engine, train_step
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks, ranks

MODEL = ModelConfig(layers=2, hidden=32, heads=2, ffn=64, vocab_size=VOCAB, seq_len=SEQ_LEN)
SLEEP = 0.15
PASSES = {"data": (Mesh(), 2, 2), "overlap": (Mesh(overlap=True), 2, 1)}
PASSES |= {"pipeline": (Mesh(pipeline=2), 4, 4)}
"""Mesh, micro batches that the slow rank computes in a step of 4 sequences, and those in which the
other does not wait: in the first with overlap weights are waited for."""


def new_engine(mesh: Mesh) -> Engine:
    optim = OptimConfig(lr=1e-2, min_lr=1e-3, decay_steps=10)
    return build_engine(MODEL, mesh, optim, precision="fp32", seed=3)


@pytest.mark.parametrize(("mesh", "passes", "told"), PASSES.values(), ids=PASSES)
def test_own_work_is_told_from_waiting(mesh: Mesh, passes: int, told: int) -> None:
    """Rank 1 sleeps in each forward pass: both need that long, and only rank 1 worked so long."""

    def run(rank: Rank) -> tuple[float, float]:
        open_groups(mesh, seed=1)
        engine = new_engine(mesh)
        train_step(engine, micro_batches(1), 1)
        if rank.index == 1:
            model = unwrap(engine.chunks[0])
            model.register_forward_pre_hook(lambda *_: time.sleep(SLEEP))
        dist.barrier()
        began = time.perf_counter()
        train_step(engine, micro_batches(2), 2)
        return engine.own_time.seconds(), time.perf_counter() - began

    (waits, whole), (works, _) = on_ranks(2, run)
    assert works >= SLEEP * passes
    assert whole >= SLEEP * passes
    assert works - waits > 0.7 * SLEEP * told


@ranks(2)
def test_keeping_time_changes_no_number(rank: Rank) -> None:
    open_groups(Mesh(), seed=1)

    def trained(*, timed: bool) -> list[torch.Tensor]:
        engine = new_engine(Mesh())
        unwrap(engine.chunks[0]).config.timers = engine.own_time if timed else None
        losses = [train_step(engine, micro_batches(step), step).loss for step in (1, 2, 3)]
        assert bool(engine.own_time.spans[1:]) is timed  # the first is the reading of the batch
        weights = [weight.detach().clone() for weight in unwrap(engine.chunks[0]).parameters()]
        return [torch.tensor(losses, dtype=torch.float64), *weights]

    assert all(map(torch.equal, trained(timed=True), trained(timed=False)))


@ranks(2)
def test_a_stage_of_more_layers_is_not_called_slow(rank: Rank) -> None:
    mesh = Mesh(pipeline=2, layers=(1, 3))
    open_groups(mesh, seed=1)
    model = MODEL.model_copy(update={"layers": 4})
    optim = OptimConfig(lr=1e-2, min_lr=1e-3, decay_steps=10)
    own = build_engine(model, mesh, optim, precision="fp32", seed=3).own_time
    with own.measured():
        time.sleep(SLEEP * (1, 3)[rank.index])
    assert SLEEP * 2 <= own.seconds() < SLEEP * 3
