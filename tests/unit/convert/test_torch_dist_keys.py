"""Checkpoints under the keys of other builds of megatron-core, and ours with their optimizer."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.convert.torch_dist_in import open_checkpoint
from megatron_jobs.errors import DataError
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.step import build_engine
from tests.ranks import on_ranks

HIDDEN, FFN, ROWS = 16, 24, 32
MODEL = ModelConfig(
    layers=2, hidden=HIDDEN, heads=2, ffn=FFN, vocab_size=30, pad_vocab_to=ROWS, seq_len=8,
    experts=2, tied=True,
)  # fmt: skip
DENSE = MODEL.model_copy(update={"experts": 0})
LAYERS = "decoder.layers."
ATTENTION = {
    "self_attention.linear_qkv.layer_norm_weight": (HIDDEN,),
    "self_attention.linear_qkv.weight": (3 * HIDDEN, HIDDEN),
    "self_attention.linear_proj.weight": (HIDDEN, HIDDEN),
}
EXPERT = {"linear_fc1.weight": (2 * FFN, HIDDEN), "linear_fc2.weight": (HIDDEN, FFN)}
ENDS = {
    "embedding.word_embeddings.weight": (ROWS, HIDDEN),
    "decoder.final_layernorm.weight": (HIDDEN,),
}


def check(folder: Path, state: dict[str, Tensor], model: ModelConfig, **wanted: Tensor) -> None:
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    found, _ = open_checkpoint(folder, model)
    for place, value in wanted.items():
        name = place.replace("__", ".")
        assert found[name].array().tobytes() == value.contiguous().numpy().tobytes(), name


def random(shapes: dict[str, tuple[int, ...]], prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "model.module."])
def test_layers_and_experts_that_are_stacked(tmp_path: Path, prefix: str) -> None:
    stacked = {name: (2, *shape) for name, shape in ATTENTION.items()}
    stacked |= {"pre_mlp_layernorm.weight": (2, HIDDEN), "mlp.router.weight": (2, 2, HIDDEN)}
    stacked |= {f"mlp.experts.experts.{name}": (2, 2, *shape) for name, shape in EXPERT.items()}
    state = random(ENDS) | random(stacked, LAYERS)
    experts = state[f"{LAYERS}mlp.experts.experts.linear_fc1.weight"]
    norms = state[f"{LAYERS}self_attention.linear_qkv.layer_norm_weight"]
    check(
        tmp_path, {prefix + name: value for name, value in state.items()}, MODEL,
        decoder__layers__1__mlp__experts__local_experts__0__linear_fc1__weight=experts[1, 0],
        decoder__layers__0__mlp__experts__local_experts__1__linear_fc1__weight=experts[0, 1],
        decoder__layers__1__input_layernorm__weight=norms[1],
    )  # fmt: skip


def test_a_key_for_each_layer_and_expert(tmp_path: Path) -> None:
    state = random(ENDS)
    for layer in range(2):
        own = f"{LAYERS}{layer}."
        more = {"pre_mlp_layernorm.weight": (HIDDEN,), "mlp.router.weight": (2, HIDDEN)}
        state |= random(ATTENTION | more, own)
        for expert in range(2):
            state |= random(EXPERT, f"{own}mlp.experts.experts.{expert}.")
    check(
        tmp_path, state, MODEL,
        decoder__layers__1__mlp__experts__local_experts__0__linear_fc2__weight=state[
            f"{LAYERS}1.mlp.experts.experts.0.linear_fc2.weight"
        ],
    )  # fmt: skip


def test_gate_and_up_under_keys_of_their_own(tmp_path: Path) -> None:
    shapes = ATTENTION | {
        "mlp.linear_fc1.layer_norm_weight": (HIDDEN,), "mlp.linear_fc1.weight_w": (FFN, HIDDEN),
        "mlp.linear_fc1.weight_v": (FFN, HIDDEN), "mlp.linear_fc2.weight": (HIDDEN, FFN),
    }  # fmt: skip
    state = random(ENDS) | random(shapes, LAYERS + "0.") | random(shapes, LAYERS + "1.")
    halves = [state[f"{LAYERS}1.mlp.linear_fc1.weight_{half}"] for half in "wv"]
    check(tmp_path, state, DENSE, decoder__layers__1__mlp__linear_fc1__weight=torch.cat(halves))


def test_a_key_of_no_known_place_is_named(tmp_path: Path) -> None:
    state = random(ENDS) | random({"mtp.layers.0.eh_proj.weight": (4, 4)})
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    with pytest.raises(DataError, match=r"mtp\.layers\.\d\.eh_proj\.weight|has no place"):
        open_checkpoint(tmp_path, DENSE)


OWN = ModelConfig(
    layers=4, hidden=32, heads=4, kv_heads=2, ffn=64, vocab_size=100, seq_len=16, experts=2,
)  # fmt: skip
OPTIM = OptimConfig(lr=1e-3, min_lr=1e-4, warmup_steps=3, decay_steps=20)


@pytest.mark.parametrize(
    "mesh", [Mesh(tensor=2, sequence_parallel=True), Mesh(pipeline=2, virtual=2)]
)
def test_our_own_with_their_optimizer(tmp_path: Path, mesh: Mesh) -> None:
    """The whole tensors are those that one rank loads."""

    def save(rank: Rank) -> None:
        open_groups(mesh, seed=1)
        engine = build_engine(OWN, mesh, OPTIM, precision="fp32", seed=3)
        layout: dict[str, Any] = {"device": "cpu", "world": 2, **mesh.model_dump()}
        record = {"model": OWN.model_dump(mode="json"), "precision": "fp32"}
        save_checkpoint(tmp_path, 5, Training(engine.chunks, engine.optimizer, layout), record)

    def load(rank: Rank) -> dict[str, Tensor]:
        from megatron_jobs.checkpoint.model import open_model

        open_groups(Mesh(), seed=1)
        (chunk,) = open_model(tmp_path / "step-00000005", Mesh(), "fp32")
        return {name: value.detach().clone() for name, value in chunk.named_parameters()}

    on_ranks(2, save)
    found, _ = open_checkpoint(tmp_path / "step-00000005", OWN)
    (wanted,) = on_ranks(1, load)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].array().tobytes() == value.numpy().tobytes(), name
