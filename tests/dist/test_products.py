"""Weight gradients that layers add to their sums: the same as those that are added afterwards."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.kernels import gradients
from megatron_jobs.parallel import products
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.step import build_engine, run_micro_batches
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks

DENSE = ModelConfig(
    layers=2, hidden=32, heads=2, ffn=64, vocab_size=VOCAB, seq_len=SEQ_LEN, tied=True, bias=True
)
SPARSE = DENSE.model_copy(update={"experts": 8, "experts_per_token": 1, "bias": False})
CASES = {
    "dense": (1, DENSE, Mesh()),
    "untied, overlap": (1, DENSE.model_copy(update={"tied": False}), Mesh(overlap=True)),
    "experts": (1, SPARSE, Mesh()),
    "tensor 2": (2, DENSE, Mesh(tensor=2, sequence_parallel=True)),
}


def sums_of(model: ModelConfig, mesh: Mesh, *, joined: bool) -> list[Tensor]:
    """What two micro batches of a second step add up to, NaN before."""
    products.makes_products = lambda: joined
    engine = build_engine(model, mesh, OptimConfig(), precision="fp32", seed=3)
    (chunk,) = engine.chunks
    for _ in range(2):
        chunk.zero_grad_buffer()
        for parameter in chunk.module.parameters():
            parameter.main_grad.fill_(torch.nan)
        run_micro_batches(engine, list(micro_batches(1)), forward_only=False)
    return [parameter.main_grad.clone() for parameter in chunk.module.parameters()]


@pytest.mark.parametrize("name", CASES)
def test_sums_are_those_of_gradients_added_afterwards(name: str) -> None:
    world, model, mesh = CASES[name]

    def run(rank: Rank) -> None:
        open_groups(mesh, seed=1)
        calls = []
        add = gradients.add_product

        def noted(*given: Tensor, first: bool) -> None:
            calls.append(first)
            add(*given, first=first)

        vars(products)["add_product"] = noted
        apart = sums_of(model, mesh, joined=False)
        assert not calls
        for found, wanted in zip(sums_of(model, mesh, joined=True), apart, strict=True):
            assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        assert calls.count(True) * len(list(micro_batches(1))) == len(calls)

    on_ranks(world, run)
