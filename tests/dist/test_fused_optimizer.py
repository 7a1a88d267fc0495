"""The optimizer's step in one pass, inside megatron-core's, against torch's there."""

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
from megatron_jobs.optim.adam import FusedAdamW, copies_of
from megatron_jobs.parallel.cures import unwrap
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.step import Engine, build_engine, train_step
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks

MODEL = ModelConfig(layers=2, hidden=32, heads=2, ffn=64, vocab_size=VOCAB, seq_len=SEQ_LEN)
OPTIM = OptimConfig(lr=1e-2, min_lr=1e-3, decay_steps=10, clip=0.5)
CALM = OPTIM.model_copy(update={"eps": 1e-3})
"""For bf16: with eps so large, no weight moves by the sign alone of a gradient next to none."""


def optim_of(precision: Precision) -> OptimConfig:
    return CALM if precision == "bf16" else OPTIM


def trained(precision: Precision, adam: Choice) -> Engine:
    choose(KernelsConfig(adam=adam))
    open_groups(Mesh(), seed=1)
    engine = build_engine(MODEL, Mesh(), optim_of(precision), precision=precision, seed=3)
    for step in (1, 2):
        assert train_step(engine, micro_batches(step), step).grad_norm > OPTIM.clip
    return engine


def weights(engine: Engine) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in unwrap(engine.chunks[0]).named_parameters()}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_moves_the_weights_as_torch_does(precision: Precision) -> None:
    def fused(rank: Rank) -> dict[str, Tensor]:
        engine = trained(precision, "fused")
        (part,) = engine.optimizer.chained_optimizers
        assert isinstance(part.optimizer, FusedAdamW)
        assert part.optimizer.wrote_copies
        copies = list(copies_of(part))
        assert bool(copies) == (precision != "fp32")
        assert all(torch.equal(copy, own.to(copy.dtype)) for own, copy in copies)
        return weights(engine)

    expected = on_ranks(2, lambda rank: weights(trained(precision, "reference")))[0]
    tolerance = 1e-5 if precision == "fp32" else 2e-3
    for found in on_ranks(2, fused):
        assert_close(found, expected, rtol=1e-2 if tolerance > 1e-5 else 0, atol=tolerance)
