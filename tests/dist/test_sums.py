"""Sums of gradients: what is left of an earlier step is never read."""

import math

import pytest
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.batch import MicroBatch
from megatron_jobs.train.step import Engine, build_engine, run_micro_batches
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks

MODEL = ModelConfig(layers=2, hidden=32, heads=2, ffn=64, vocab_size=VOCAB, seq_len=SEQ_LEN)


def spoilt(engine: Engine) -> list[Tensor]:
    """The sums, ready for a step, with numbers in them that must not come through."""
    (chunk,) = engine.chunks
    chunk.zero_grad_buffer()
    sums = [parameter.main_grad for parameter in chunk.module.parameters()]
    for total in sums:
        total.fill_(math.nan)
    return sums


def sums_of(engine: Engine, batches: list[MicroBatch]) -> list[Tensor]:
    """Gradients of all targets of some micro batches, added up on this rank's part of them."""
    sums = spoilt(engine)
    loss = run_micro_batches(engine, batches, forward_only=False)
    return [total.clone() * loss.tokens for total in sums]


@pytest.mark.parametrize("mesh", [Mesh(), Mesh(overlap=True)])
def test_only_gradients_of_this_step_are_summed(mesh: Mesh) -> None:
    def run(rank: Rank) -> None:
        open_groups(mesh, seed=1)
        engine = build_engine(MODEL, mesh, OptimConfig(), precision="bf16", seed=3)
        first, second = (list(micro_batches(step)) for step in (1, 2))
        parts = [sums_of(engine, batches) for batches in (first, second)]
        for found, *wanted in zip(sums_of(engine, first + second), *parts, strict=True):
            assert_close(found, wanted[0] + wanted[1], atol=1e-5, rtol=1e-5)

    on_ranks(1, run)


def test_what_got_no_gradient_is_clear_before_it_is_shared() -> None:
    def run(rank: Rank) -> None:
        open_groups(Mesh(), seed=1)
        engine = build_engine(MODEL, Mesh(), OptimConfig(), precision="bf16", seed=3)
        sums = spoilt(engine)
        engine.chunks[0].finish_grad_sync()
        assert all(not total.any() for total in sums)

    on_ranks(2, run)
