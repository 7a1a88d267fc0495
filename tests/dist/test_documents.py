"""Documents that share a sample train as if each were alone, however the model is cut."""

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.data.cursor import NO_SAMPLE, DocumentEnds, read_batch
from megatron_jobs.data.packing import build_packed_order
from megatron_jobs.data.sample_index import SplitSamples
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.parallel.cures import unwrap
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.batch import MicroBatch
from megatron_jobs.train.step import (
    Engine,
    build_engine,
    evaluate_loss,
    run_micro_batches,
    train_step,
)
from tests.batches import SEQ_LEN, VOCAB
from tests.ranks import on_ranks

LENGTHS = [9, 14, 3, 33, 20, 2, 12]
"""All are whole in samples of 33 tokens; the last one of these has padding."""
ENDS = DocumentEnds(reset_positions=True, reset_attention=True)
OPTIM = OptimConfig(lr=1e-3, min_lr=1e-4, decay_steps=10)
ROPE = ModelConfig(
    layers=2, hidden=32, heads=4, kv_heads=2, ffn=64, vocab_size=VOCAB, seq_len=SEQ_LEN
)
LEARNED = ROPE.model_copy(update={"position": "learned", "kv_heads": None})
NEAR = ROPE.model_copy(update={"window": 6, "full_layers": (1,), "local_rope_base": 300})
CAPPED = NEAR.model_copy(update={"attention_softcap": 0.5})
MODELS = {"rope": ROPE, "learned": LEARNED, "near": NEAR, "capped": CAPPED}

LAYOUTS: dict[str, tuple[int, Mesh]] = {
    "one": (1, Mesh()),
    "recompute layers": (1, Mesh(recompute="layer")),
    "recompute attention": (1, Mesh(recompute="attention")),
    "context 2": (2, Mesh(context=2)),
    "tensor 2 x pipeline 2": (4, Mesh(tensor=2, pipeline=2)),
    "tensor 2 x context 2": (4, Mesh(tensor=2, context=2, sequence_parallel=True)),
}


def documents() -> list[Tensor]:
    draw = torch.Generator().manual_seed(5)
    return [torch.randint(0, VOCAB, (length,), generator=draw) for length in LENGTHS]


def alone(document: Tensor) -> MicroBatch:
    """A document by itself: no padding, no mask."""
    size = len(document) - 1
    return MicroBatch(
        tokens=document[None, :-1],
        labels=document[None, 1:],
        loss_mask=torch.ones(1, size),
        positions=torch.arange(size)[None],
    )


def packed(ends: DocumentEnds = ENDS) -> Iterator[MicroBatch]:
    """All documents, two samples at a time; what is missing in the last is padding."""
    with TemporaryDirectory() as folder:
        prefix = Path(folder) / "tokens"
        with write_token_file(prefix, vocab_size=VOCAB) as writer:
            writer.add(torch.cat(documents()).tolist(), LENGTHS)
        tokens = TokenFile.open(prefix)
        order, facts = build_packed_order(
            tokens, range(len(LENGTHS)), samples=None, seq_len=SEQ_LEN, seed=1
        )
        assert (facts.cut, facts.bins) == (0, 3)
        split = SplitSamples(SEQ_LEN, [tokens], [order], None)
        for numbers in ([0, 1], [2, NO_SAMPLE]):
            arrays = read_batch(split, numbers, ends=ends)
            yield MicroBatch(**{n: torch.from_numpy(a) for n, a in arrays.items()})  # type: ignore[typeddict-item]


def engine_of(model: ModelConfig, mesh: Mesh) -> Engine:
    open_groups(mesh, seed=1)
    return build_engine(model, mesh, OPTIM, precision="fp32", seed=3)


def gradients(engine: Engine, batches: list[MicroBatch]) -> tuple[float, dict[str, Tensor]]:
    """Sums over the counted targets of some micro batches: the loss's, and its gradients'."""
    for chunk in engine.chunks:
        chunk.zero_grad_buffer()
    loss = run_micro_batches(engine, batches, forward_only=False)
    named = unwrap(engine.chunks[0]).named_parameters()
    return loss.total, {name: p.main_grad.clone() * loss.tokens for name, p in named}


@functools.cache
def one_by_one(name: str) -> tuple[float, dict[str, Tensor]]:
    """Mean loss of the targets of all documents, each run alone, and its gradients."""

    def run(rank: Rank) -> tuple[float, dict[str, Tensor]]:
        engine = engine_of(MODELS[name], Mesh())
        parts = [gradients(engine, [alone(document)]) for document in documents()]
        targets = sum(LENGTHS) - len(LENGTHS)
        names = parts[0][1]
        sums = {n: torch.stack([part[n] for _, part in parts]).sum(0) / targets for n in names}
        return sum(total for total, _ in parts) / targets, sums

    return on_ranks(1, run)[0]  # type: ignore[no-any-return]


def packed_numbers(model: ModelConfig, mesh: Mesh) -> Callable[[Rank], list[Any]]:
    def run(rank: Rank) -> list[Any]:
        engine = engine_of(model, mesh)
        looked = evaluate_loss(engine, packed())
        step = train_step(engine, packed(), 1)
        assert looked.tokens == step.tokens == sum(LENGTHS) - len(LENGTHS)
        return [looked.mean, step.loss, step.grad_norm]

    return run


CASES = [
    *(("rope", layout) for layout in LAYOUTS),
    ("learned", "tensor 2 x context 2"),
    ("near", "one"),
    ("near", "context 2"),
    ("capped", "tensor 2 x context 2"),
]


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_packed_documents_weigh_as_each_alone(name: str, layout: str) -> None:
    loss, sums = one_by_one(name)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in sums.values()))
    world, mesh = LAYOUTS[layout]
    for found in on_ranks(world, packed_numbers(MODELS[name], mesh)):
        assert_close(found, [loss, loss, norm], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", MODELS)
def test_every_gradient_is_that_of_each_alone(name: str) -> None:
    def run(rank: Rank) -> dict[str, Tensor]:
        return gradients(engine_of(MODELS[name], Mesh()), list(packed()))[1]

    found = on_ranks(1, run)[0]
    targets = sum(LENGTHS) - len(LENGTHS)
    for parameter, gradient in one_by_one(name)[1].items():
        assert_close(found[parameter] / targets, gradient, rtol=1e-4, atol=1e-7, msg=parameter)


@pytest.mark.parametrize(
    ("ends", "name"),
    [
        (DocumentEnds(reset_positions=True), "rope"),
        (DocumentEnds(reset_positions=True), "learned"),
        (DocumentEnds(reset_attention=True), "learned"),
    ],
)
def test_each_reset_is_needed(ends: DocumentEnds, name: str) -> None:
    def run(rank: Rank) -> float:
        return evaluate_loss(engine_of(MODELS[name], Mesh()), packed(ends)).mean

    assert abs(on_ranks(1, run)[0] - one_by_one(name)[0]) > 1e-4


def test_rotary_positions_need_no_reset() -> None:
    def run(rank: Rank) -> float:
        ends = DocumentEnds(reset_attention=True)
        return evaluate_loss(engine_of(ROPE, Mesh()), packed(ends)).mean

    np.testing.assert_allclose(on_ranks(1, run)[0], one_by_one("rope")[0], rtol=0, atol=2e-6)
