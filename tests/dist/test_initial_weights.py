"""Initial weights: the same however they are cut, and as wide as asked."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.convert.leaves import leaf_of, shape_of
from megatron_jobs.model.build import build_model
from megatron_jobs.model.initialize import cut_dim, is_cut, whole_name
from megatron_jobs.parallel.groups import open_groups
from tests.ranks import on_ranks

MODEL = ModelConfig(
    layers=4, hidden=64, heads=4, kv_heads=2, ffn=96, vocab_size=500, seq_len=16, bias=True
)
Weights = dict[str, Tensor]


def weights_on(
    world: int, mesh: Mesh, *, seed: int = 3, model: ModelConfig = MODEL
) -> list[Weights]:
    """Each rank's parameters by their local names, chunk by chunk."""

    def build(rank: Any) -> Weights:
        open_groups(mesh, seed=rank.index)
        chunks = build_model(model, mesh, seed=seed)
        return {
            f"{i}.{n}": p.detach() for i, c in enumerate(chunks) for n, p in c.named_parameters()
        }

    return on_ranks(world, build)


def joined(name: str, cuts: list[Tensor]) -> Tensor:
    """The whole parameter from its cuts on two tensor ranks, by what each matrix is."""
    if name.endswith("linear_fc1.weight"):
        halves = [cut.chunk(2) for cut in cuts]  # each rank has gates, then values
        return torch.cat([gate for gate, _ in halves] + [value for _, value in halves])
    if name.endswith(("linear_qkv.weight", "word_embeddings.weight", "output_layer.weight")):
        return torch.cat(cuts)
    if name.endswith(("linear_proj.weight", "linear_fc2.weight")):
        return torch.cat(cuts, dim=1)
    if name.endswith(("linear_qkv.bias", "linear_fc1.bias")):
        return torch.cat(cuts)
    assert torch.equal(cuts[0], cuts[1]), name
    return cuts[0]


def test_tensor_cuts_join_to_the_whole() -> None:
    (whole,) = weights_on(1, Mesh())
    cuts = weights_on(2, Mesh(tensor=2))
    assert cuts[0].keys() == whole.keys()
    for name, expected in whole.items():
        assert torch.equal(joined(name, [cut[name] for cut in cuts]), expected), name


@pytest.mark.parametrize(("virtual", "layers"), [(1, [0, 1, 2, 3]), (2, [0, 2, 1, 3])])
def test_stages_hold_the_layers_of_the_whole(virtual: int, layers: list[int]) -> None:
    """Two stages hold layers 0 1 | 2 3; interleaved they hold 0 2 | 1 3."""
    (whole,) = weights_on(1, Mesh())
    stages = weights_on(2, Mesh(pipeline=2, virtual=virtual))
    matrix = "mlp.linear_fc1.weight"
    held = [stage[name] for stage in stages for name in stage if name.endswith(matrix)]
    for found, layer in zip(held, layers, strict=True):
        assert torch.equal(found, whole[f"0.decoder.layers.{layer}.{matrix}"])


def test_widths_ones_and_zeros() -> None:
    (whole,) = weights_on(1, Mesh())
    for name, weight in whole.items():
        if weight.dim() == 1:
            assert set(weight.tolist()) == {0.0 if name.endswith("bias") else 1.0}, name
            continue
        residual = name.endswith(("linear_proj.weight", "linear_fc2.weight"))
        expected = 0.02 / math.sqrt(8) if residual else 0.02
        assert float(weight.std()) == pytest.approx(expected, rel=0.05), name
        assert abs(float(weight.mean())) < expected / 10


def test_seed_and_name_make_the_weights() -> None:
    (first,), (other) = weights_on(1, Mesh()), weights_on(1, Mesh(), seed=4)[0]
    matrices = [name for name, weight in first.items() if weight.dim() > 1]
    assert not any(torch.equal(first[name], other[name]) for name in matrices)
    qkv = [first[name] for name in matrices if name.endswith("linear_qkv.weight")]
    assert not torch.equal(qkv[0], qkv[1]), "layers must differ"


LATENT = ModelConfig(
    layers=2,
    hidden=32,
    heads=4,
    ffn=48,
    vocab_size=100,
    rope_interleaved=True,
    latent=LatentAttention(q_rank=12, kv_rank=20, nope_dim=10, rope_dim=6, value_dim=8),
    experts=4,
    expert_ffn=24,
    shared_ffn=40,
    shared_gate=True,
    dense_layers=(0,),
    router=RouterConfig(score="sigmoid", bias=True),
)
BIASED = MODEL.model_copy(update={"experts": 4, "ffn": 48, "qk_norm": True})


@pytest.mark.parametrize("model", [LATENT, BIASED], ids=["latent", "biased"])
def test_leaves_say_shapes_and_cuts_of_all_that_is_kept(model: ModelConfig) -> None:
    def look(rank: Any) -> dict[str, tuple[list[int], str]]:
        mesh = Mesh(tensor=2, expert_tensor=1 if model.bias else 2, sequence_parallel=True)
        assert not list(model.mesh_problems(mesh))
        open_groups(mesh, seed=1)
        (chunk,) = build_model(model, mesh, seed=None)
        kept = chunk.state_dict(keep_vars=True).items()
        return {
            whole_name(chunk, name): (list(tensor.shape), cut_of(tensor))
            for name, tensor in kept
            if isinstance(tensor, Tensor)
        }

    for found in on_ranks(2, look):
        for name, (shape, cut) in found.items():
            whole, alone = list(shape_of(name, model)), model.bias and "local_experts" in name
            assert alone or cut == leaf_of(name).cut, name
            if cut != "none" and not alone:
                whole[cut == "columns"] //= 2
            assert shape == whole, name


def cut_of(tensor: Any) -> str:
    if not is_cut(tensor):
        return "none"
    if cut_dim(tensor) == 1:
        return "columns"
    return "halves" if tensor.partition_stride == 2 else "rows"
