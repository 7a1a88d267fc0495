"""A model is filled from whole tensors, however it is cut; what is missing or odd is named."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from ml_dtypes import bfloat16
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.checkpoint.fill import fill
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.matrix import Matrix, Stored
from megatron_jobs.errors import DataError
from megatron_jobs.model.build import build_model
from megatron_jobs.model.logits import whole_logits
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests.family_models import probe_tokens
from tests.ranks import on_ranks

TIED = ModelConfig(
    layers=4, hidden=32, heads=4, kv_heads=2, ffn=48, vocab_size=300, pad_vocab_to=8, seq_len=64,
    tied=True, qkv_bias=True, qk_norm=True,
)  # fmt: skip
EMBEDDING = "embedding.word_embeddings.weight"


def whole_tensors() -> dict[str, Matrix]:
    """All tensors of the model, drawn by one rank."""

    def draw(rank: Rank) -> dict[str, Tensor]:
        open_groups(Mesh(), seed=1)
        (chunk,) = build_model(TIED, Mesh(), seed=5)
        named = chunk.named_parameters()
        return {n: p.detach() + 0.1 * torch.randn_like(p) for n, p in named}

    (found,) = on_ranks(1, draw)
    return {name: Stored(tensor.numpy()) for name, tensor in found.items()}


def logits(mesh: Mesh, tensors: Mapping[str, Matrix]) -> Tensor | None:
    open_groups(mesh, seed=1)
    chunks = build_model(TIED, mesh, seed=None)
    fill(chunks, tensors)
    return whole_logits([chunk.eval() for chunk in chunks], probe_tokens(16))


@pytest.mark.parametrize(
    "mesh", [Mesh(pipeline=2, virtual=2), Mesh(tensor=2), Mesh(tensor=2, sequence_parallel=True)]
)
def test_every_cut_says_what_one_rank_says(mesh: Mesh) -> None:
    """A tied embedding has a copy on the last stage."""
    tensors = whole_tensors()
    (expected,) = on_ranks(1, lambda rank: logits(Mesh(), tensors))
    found = [x for x in on_ranks(2, lambda rank: logits(mesh, tensors)) if x is not None]
    assert len(found) == mesh.tensor
    for one in found:
        assert_close(one, expected, rtol=0, atol=1e-5)


def test_other_formats_are_rounded_once() -> None:
    tensors = whole_tensors()
    rough = {name: Stored(matrix.array().astype(bfloat16)) for name, matrix in tensors.items()}

    def read(rank: Rank) -> Tensor:
        open_groups(Mesh(), seed=1)
        (chunk,) = build_model(TIED, Mesh(), seed=None)
        fill([chunk], rough)
        return chunk.embedding.word_embeddings.weight.detach()

    (found,) = on_ranks(1, read)
    assert np.array_equal(found.numpy(), rough[EMBEDDING].array().astype(np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({EMBEDDING: None}, f"{EMBEDDING}: missing; the model has it"),
        (
            {"decoder.layers.2.mlp.linear_fc2.weight": np.zeros((32, 40), np.float32)},
            "decoder.layers.2.mlp.linear_fc2.weight: found [32, 40], of which this rank holds"
            " [32, 48]",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    tensors = whole_tensors()
    for name, array in change.items():
        del tensors[name]
        if isinstance(array, np.ndarray):
            tensors[name] = Stored(array)

    def refuse(rank: Rank) -> str:
        with pytest.raises(DataError) as caught:
            logits(Mesh(), tensors)
        return str(caught.value)

    assert on_ranks(1, refuse) == [message]
