"""Checkpoints of ours that are written without torch, loaded by megatron-core."""

import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from megatron_jobs.checkpoint.manifest import check_files, find_checkpoint, read_manifest
from megatron_jobs.checkpoint.model import open_model
from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training, content_metadata
from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.router import RouterConfig
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
FIVE = ModelConfig(**SIZES | {"layers": 5})
MIXED = ModelConfig(**SIZES, experts=4)
LATENT = ModelConfig(
    **SIZES | {"kv_heads": 4},
    rope_interleaved=True,
    latent=LatentAttention(q_rank=12, kv_rank=20, nope_dim=10, rope_dim=6, value_dim=8),
    experts=4,
    expert_ffn=24,
    shared_ffn=40,
    shared_gate=True,
    dense_layers=(0, 2),
    router=RouterConfig(score="sigmoid", bias=True),
)
MESHES = {
    "alone": (1, Mesh()),
    "tensor": (2, Mesh(tensor=2, sequence_parallel=True)),
    "pipeline": (2, Mesh(pipeline=2)),
    "both": (4, Mesh(tensor=2, pipeline=2, sequence_parallel=True)),
    "virtual": (2, Mesh(pipeline=2, virtual=2)),
    "shared": (4, Mesh(tensor=4)),  # of 2 heads of keys
    "three": (3, Mesh(pipeline=3)),
    "given": (2, Mesh(pipeline=2, layers=(3, 1))),
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


def test_layers_that_differ(tmp_path: Path) -> None:
    root = write(tmp_path / "out", whole_model(LATENT), LATENT, CUT_EXPERTS[1])
    check_loads(root, LATENT, *MESHES["both"])
    check_loads(root, LATENT, *MESHES["virtual"])


def test_pieces_that_are_large_are_cut_and_files_dealt_out(
    dense: dict[str, Matrix], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "PIECE_BYTES", 1000)
    monkeypatch.setattr(torch_dist_out, "FILE_BYTES", 20_000)
    root = write(tmp_path / "out", dense, DENSE, MESHES["tensor"][1])
    files = sorted((root / "step-00000000").glob("__0_*.distcp"))
    assert len(files) > 3
    assert all(file.stat().st_size <= 20_000 for file in files)
    check_loads(root, DENSE, *MESHES["pipeline"])


def test_learned_positions_biases_and_no_gate(tmp_path: Path) -> None:
    root = write(tmp_path / "out", whole_model(GPT2), GPT2, MESHES["both"][1])
    check_loads(root, GPT2, *MESHES["tensor"])


def test_the_manifest_holds(dense: dict[str, Matrix], tmp_path: Path) -> None:
    more = {"record": {"tokenizer_hash": "abc"}, "step": 7}
    root = write(tmp_path / "out", dense, DENSE, MESHES["both"][1], **more)
    folder = find_checkpoint(root)
    manifest = read_manifest(folder)
    assert folder.name == "step-00000007"
    assert manifest.step == 7
    assert manifest.record["tokenizer_hash"] == "abc"
    assert ModelConfig(**manifest.record["model"]) == DENSE
    assert check_files(folder, manifest) == ""
    assert set(manifest.files) == {p.name for p in folder.iterdir()} - {"manifest.json"}


def test_the_same_model_gives_the_same_bytes(dense: dict[str, Matrix], tmp_path: Path) -> None:
    one, other = (write(tmp_path / name, dense, DENSE, Mesh()) for name in ("one", "other"))
    for path in sorted(one.rglob("*.distcp")):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()
    assert read_manifest(find_checkpoint(one)) == read_manifest(find_checkpoint(other))


@pytest.mark.parametrize(
    ("model", "ranks"),
    [
        (DENSE, MESHES["both"]),
        (DENSE, MESHES["virtual"]),
        (DENSE, MESHES["shared"]),
        (DENSE, MESHES["given"]),
        (FIVE, MESHES["virtual"]),
        (LATENT, MESHES["three"]),
        (MIXED, EXPERTS),
        (MIXED, CUT_EXPERTS),
        (LATENT, MESHES["virtual"]),
        (LATENT, CUT_EXPERTS),
    ],
)
def test_what_a_run_saves_has_the_same_keys_and_pieces(
    model: ModelConfig, ranks: tuple[int, Mesh], tmp_path: Path
) -> None:
    """All keys of a real checkpoint, its chunks, and its ranks' shares of them."""
    world, mesh = ranks

    def save(rank: Rank) -> None:
        open_groups(mesh, 0)
        training = Training(build_model(model, mesh, "fp32"), None, {"world": world})
        save_checkpoint(tmp_path / "real", 0, training, {})

    on_ranks(world, save)
    root = write(tmp_path / "out", whole_model(model), model, mesh)
    real, ours = (metadata(path / "step-00000000") for path in (tmp_path / "real", root))
    assert set(ours.state_dict_metadata) == set(real.state_dict_metadata)
    for key, wanted in real.state_dict_metadata.items():
        found = ours.state_dict_metadata[key]
        assert type(found) is type(wanted)
        if hasattr(wanted, "size"):
            assert (found.size, found.properties) == (wanted.size, wanted.properties)
            assert chunks(found) == chunks(wanted), key
    assert ranks_of(ours) == ranks_of(real)


def metadata(folder: Path) -> Any:
    return pickle.loads((folder / ".metadata").read_bytes())


def ranks_of(found: Any) -> dict[Any, str]:
    """Which rank wrote each piece."""
    places = found.storage_data.items()
    return {k: v.relative_path.split("_")[2] for k, v in places if k.offset is not None}


def chunks(tensor: Any) -> list[Any]:
    return sorted((tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in tensor.chunks)


def test_the_content_is_that_of_our_own_saves() -> None:
    assert content_metadata() == CONTENT


def test_a_mesh_that_cannot_cut_the_model(dense: dict[str, Matrix]) -> None:
    with pytest.raises(ConfigError, match=r"mesh: heads: 4 heads cannot be cut over 8"):
        plan_checkpoint(dense, DENSE, Mesh(tensor=8), "fp32")


def test_a_tensor_of_another_shape(dense: dict[str, Matrix]) -> None:
    name = "decoder.final_layernorm.weight"
    wrong = dense | {name: Stored(np.zeros(31, np.float32))}
    with pytest.raises(DataError, match=rf"{name}: found \[31\], its settings ask for \[32\]"):
        plan_checkpoint(wrong, DENSE, Mesh(), "fp32")
