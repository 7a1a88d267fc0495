"""Checkpoints of ours that are written without torch, loaded by megatron-core."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from megatron_jobs.checkpoint.manifest import check_files, read_manifest
from megatron_jobs.checkpoint.model import open_model
from megatron_jobs.checkpoint.state import content_metadata
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert import cuts, torch_dist_out
from megatron_jobs.convert.files import write_files
from megatron_jobs.convert.matrix import Matrix, Stored
from megatron_jobs.convert.torch_dist_out import CONTENT, plan_checkpoint
from megatron_jobs.errors import ConfigError, DataError
from megatron_jobs.model.build import build_model
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests.ranks import on_ranks

SIZES = {"layers": 4, "hidden": 32, "heads": 4, "kv_heads": 2, "ffn": 48, "vocab_size": 100}
DENSE = ModelConfig(**SIZES, tied=True, qkv_bias=True, qk_norm=True)
GPT2 = ModelConfig(
    **SIZES | {"kv_heads": 4}, norm="layernorm", activation="gelu", bias=True, position="learned",
    seq_len=16,
)  # fmt: skip
MIXED = ModelConfig(**SIZES, experts=4)
MESHES = {
    "alone": (1, Mesh()),
    "tensor": (2, Mesh(tensor=2, sequence_parallel=True)),
    "pipeline": (2, Mesh(pipeline=2)),
    "both": (4, Mesh(tensor=2, pipeline=2, sequence_parallel=True)),
    "virtual": (2, Mesh(pipeline=2, virtual=2)),
}
EXPERTS = (2, Mesh(expert=2))
CUT_EXPERTS = (4, Mesh(tensor=2, expert=2, expert_tensor=2, sequence_parallel=True))


def stored(tensor: torch.Tensor) -> Stored:
    """A tensor as numpy's array."""
    if tensor.dtype == torch.bfloat16:
        return Stored(tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16))
    return Stored(tensor.numpy())


def whole_model(model: ModelConfig) -> dict[str, Matrix]:
    """The tensors of `build_model` on one rank, every number its own."""

    def build(rank: Rank) -> dict[str, torch.Tensor]:
        open_groups(Mesh(), 0)
        (chunk,) = build_model(model, Mesh(), "fp32")
        state = {k: v for k, v in chunk.state_dict().items() if isinstance(v, torch.Tensor)}
        return {name: value.clone() for name, value in state.items()}

    return {name: stored(value.detach()) for name, value in on_ranks(1, build)[0].items()}


def write(
    root: Path, tensors: dict[str, Matrix], model: ModelConfig, mesh: Mesh, **more: Any
) -> Path:
    plans = plan_checkpoint(tensors, model, mesh, "fp32", **more)
    write_files(plans, root, key=lambda: "key")
    return root


def check_loads(root: Path, model: ModelConfig, world: int, mesh: Mesh) -> None:
    """On every rank what is loaded is what `build_model` makes there."""

    def compare(rank: Rank) -> None:
        open_groups(mesh, 0)
        wanted = build_model(model, mesh, "fp32")
        found = open_model(root, mesh, "fp32")
        for one, other in zip(found, wanted, strict=True):
            pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
            for (name, value), (_, right) in pairs:
                assert torch.equal(value, right), name

    on_ranks(world, compare)


@pytest.fixture(scope="module")
def dense() -> dict[str, Matrix]:
    return whole_model(DENSE)


@pytest.fixture(scope="module")
def mixed() -> dict[str, Matrix]:
    return whole_model(MIXED)


@pytest.mark.parametrize("saved", MESHES)
def test_every_mesh_loads_on_one_rank(saved: str, dense: dict[str, Matrix], tmp_path: Path) -> None:
    root = write(tmp_path / "out", dense, DENSE, MESHES[saved][1])
    check_loads(root, DENSE, *MESHES["alone"])


@pytest.mark.parametrize("loaded", MESHES)
def test_it_loads_on_every_mesh(loaded: str, dense: dict[str, Matrix], tmp_path: Path) -> None:
    root = write(tmp_path / "out", dense, DENSE, MESHES["both"][1])
    check_loads(root, DENSE, *MESHES[loaded])


def test_experts_of_two_ranks(mixed: dict[str, Matrix], tmp_path: Path) -> None:
    root = write(tmp_path / "out", mixed, MIXED, EXPERTS[1])
    check_loads(root, MIXED, *EXPERTS)
    check_loads(root, MIXED, *MESHES["pipeline"])


def test_experts_that_are_cut(mixed: dict[str, Matrix], tmp_path: Path) -> None:
    root = write(tmp_path / "out", mixed, MIXED, CUT_EXPERTS[1])
    check_loads(root, MIXED, *CUT_EXPERTS)
    check_loads(root, MIXED, *MESHES["alone"])
