"""Models with other norms and streams learn on any mesh what they learn on one rank."""

import functools
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from megatron_jobs.checkpoint.load import load_checkpoint
from megatron_jobs.checkpoint.manifest import step_folder
from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.convert.leaves import shape_of
from megatron_jobs.model.build import build_model
from megatron_jobs.model.initialize import whole_name
from megatron_jobs.parallel.cures import unwrap
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.loop import layout_of
from megatron_jobs.train.step import build_engine, evaluate_loss, train_step
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks

STEPS = 3
OPTIM = OptimConfig(lr=2e-3, min_lr=1e-4, decay_steps=10, clip=0.5)
PLAIN = ModelConfig(
    layers=2, hidden=32, heads=4, kv_heads=2, ffn=64, vocab_size=VOCAB - 3, seq_len=SEQ_LEN
)


def changed(**settings: object) -> ModelConfig:
    return ModelConfig(**PLAIN.model_dump() | settings)


MODELS = {
    "after, over all heads": changed(norm_place="after", qk_norm=True, qk_norm_all=True),
    "both, offset, scaled, capped": changed(
        norm_place="both",
        norm_offset=True,
        qk_norm=True,
        qk_norm_all=True,
        embedding_scale=32**0.5,
        logit_softcap=0.5,
        tied=True,
    ),
    "parallel, biased": changed(
        norm="layernorm", bias=True, parallel_residual=True, output_bias=True, norm_offset=True
    ),
    "residual": changed(norm="layernorm", norm_place="residual", position="learned", bias=True),
    "parallel, both": changed(norm_place="both", parallel_residual=True),
}
MESHES = {
    "tensor 2": (2, Mesh(tensor=2)),
    "tensor 2 x pipeline 2": (4, Mesh(tensor=2, pipeline=2, sequence_parallel=True)),
    "context 2, recompute": (2, Mesh(context=2, recompute="layer")),
}


def learn(rank: Rank, mesh: Mesh) -> dict[str, list[float]]:
    """Of each model: losses and norms of its steps, between losses of a batch left out."""
    open_groups(mesh, seed=1)
    seen: dict[str, list[float]] = {}
    for name, model in MODELS.items():
        engine = build_engine(model, mesh, OPTIM, precision="fp32", seed=3)
        before = evaluate_loss(engine, micro_batches(99)).mean
        steps = [train_step(engine, micro_batches(n), n) for n in range(1, STEPS + 1)]
        after = evaluate_loss(engine, micro_batches(99)).mean
        seen[name] = [before, *(x for s in steps for x in (s.loss, s.grad_norm)), after]
    return seen


@functools.cache
def one_rank() -> dict[str, list[float]]:
    (seen,) = on_ranks(1, lambda rank: learn(rank, Mesh()))
    return dict(seen)


@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_learns_as_one_rank_does(name: str) -> None:
    world, mesh = MESHES[name]
    assert not [p for model in MODELS.values() for p in model.mesh_problems(mesh)]
    for seen in on_ranks(world, lambda rank: learn(rank, mesh)):
        for model, expected in one_rank().items():
            found = torch.tensor(seen[model]) - torch.tensor(expected)
            assert float(found.abs().max()) < 1e-5, f"{model}: {found}"


def test_all_of_them_learn() -> None:
    for name, seen in one_rank().items():
        assert seen[-1] < seen[0] - 0.01, name


def test_parameters_are_counted_and_have_their_shapes() -> None:
    """What is built is what the settings say; norms start as one, also where they are an offset."""

    def look(rank: Rank) -> None:
        open_groups(Mesh(), seed=1)
        for name, model in MODELS.items():
            (chunk,) = build_model(model, Mesh(), seed=3)
            assert sum(p.numel() for p in chunk.parameters()) == model.parameters(), name
            for own, parameter in chunk.named_parameters():
                assert tuple(parameter.shape) == shape_of(whole_name(chunk, own), model), own
                if own.endswith("norm.weight"):
                    assert parameter.unique().tolist() == [0.0 if model.norm_offset else 1.0], own

    on_ranks(1, look)


def test_a_checkpoint_of_four_ranks_is_read_by_one(tmp_path: Path) -> None:
    """With norms whose columns differ by then."""
    folders = {name: tmp_path / str(number) for number, name in enumerate(MODELS)}
    cut = Mesh(tensor=2, pipeline=2)

    def save(rank: Rank) -> list[float]:
        open_groups(cut, seed=1)
        return [saved_loss(rank, MODELS[name], cut, folders[name]) for name in MODELS]

    def read(rank: Rank) -> list[float]:
        open_groups(Mesh(), seed=1)
        return [read_loss(MODELS[name], folders[name]) for name in MODELS]

    expected = on_ranks(4, save)
    (found,) = on_ranks(1, read)
    assert_close([found] * 4, expected, rtol=0, atol=1e-6)


def saved_loss(rank: Rank, model: ModelConfig, mesh: Mesh, folder: Path) -> float:
    """Of a held-out batch, after two steps of training that `folder` then holds."""
    engine = build_engine(model, mesh, OPTIM, precision="fp32", seed=3)
    for step in (1, 2):
        train_step(engine, micro_batches(step), step)
    training = Training(engine.chunks, engine.optimizer, layout_of(engine, rank))
    save_checkpoint(folder, 2, training, {})
    return evaluate_loss(engine, micro_batches(99)).mean


def read_loss(model: ModelConfig, folder: Path) -> float:
    """Of the same batch, on one rank that began with other weights."""
    engine = build_engine(model, Mesh(), OPTIM, precision="fp32", seed=4)
    load_checkpoint(step_folder(folder, 2), Training(engine.chunks, None, {}))
    named = unwrap(engine.chunks[0]).named_parameters()
    norms = [weight for name, weight in named if name.endswith("norm.weight")]
    assert all(not torch.equal(weight, weight[:1].expand_as(weight)) for weight in norms)
    return evaluate_loss(engine, micro_batches(99)).mean
