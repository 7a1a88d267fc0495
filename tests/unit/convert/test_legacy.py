"""Folders of Megatron-LM's ranks, older and newer, cut by plain code here."""

import itertools
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.legacy import open_legacy
from megatron_jobs.errors import DataError, UserError

LAYERS, HIDDEN, HEADS, HEAD, FFN, ROWS = 4, 16, 4, 4, 24, 64
MODEL = ModelConfig(
    layers=LAYERS, hidden=HIDDEN, heads=HEADS, ffn=FFN, vocab_size=60, pad_vocab_to=ROWS,
    seq_len=8, position="learned", norm="layernorm", bias=True, tied=True, activation="gelu",
)  # fmt: skip
GATED = MODEL.model_copy(update={"activation": "swiglu", "bias": False, "tied": False})
Weights = dict[str, Tensor]


def weights_of(model: ModelConfig) -> Weights:
    """Random tensors by our names."""
    inner = FFN * (2 if model.is_gated() else 1)
    shapes: dict[str, tuple[int, ...]] = {
        "embedding.word_embeddings.weight": (ROWS, HIDDEN),
        "embedding.position_embeddings.weight": (8, HIDDEN),
        "decoder.final_layernorm.weight": (HIDDEN,),
        "decoder.final_layernorm.bias": (HIDDEN,),
    }
    if not model.tied:
        shapes["output_layer.weight"] = (ROWS, HIDDEN)
    for layer in range(LAYERS):
        own = f"decoder.layers.{layer}."
        for norm in ("input_layernorm", "pre_mlp_layernorm"):
            shapes |= {own + norm + ".weight": (HIDDEN,), own + norm + ".bias": (HIDDEN,)}
        for linear, rows, columns in (
            ("self_attention.linear_qkv", 3 * HIDDEN, HIDDEN),
            ("self_attention.linear_proj", HIDDEN, HIDDEN),
            ("mlp.linear_fc1", inner, HIDDEN),
            ("mlp.linear_fc2", HIDDEN, FFN),
        ):
            shapes[f"{own}{linear}.weight"] = (rows, columns)
            if model.bias:
                shapes[f"{own}{linear}.bias"] = (rows,)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def share(name: str, value: Tensor, rank: int, ranks: int, *, gated: bool) -> Tensor:
    """What Megatron-LM keeps of a tensor on one of its tensor ranks."""
    if "linear_proj.weight" in name or "fc2.weight" in name:
        return value.chunk(ranks, dim=1)[rank].clone()
    if "fc1" in name and gated:
        return torch.cat([half.chunk(ranks)[rank] for half in value.chunk(2)])
    cut = "qkv" in name or "fc1" in name or "word_embeddings" in name or "output_layer" in name
    return value.chunk(ranks)[rank].clone() if cut else value


def to_version(value: Tensor, version: float) -> Tensor:
    """Megatron-LM's own words: 0 is [3, heads, head], 1 is [heads, head, 3] in its rows."""
    heads = value.view(-1, 3, HEAD, *value.shape[1:])
    if version == 0:
        return heads.transpose(0, 1).reshape(value.shape)
    return heads.transpose(1, 2).reshape(value.shape) if version == 1 else value


OLD = {
    "embedding.": "language_model.embedding.",
    "output_layer.": "language_model.output_layer.",
    "decoder.": "language_model.encoder.",
    "self_attention.linear_qkv": "self_attention.query_key_value",
    "self_attention.linear_proj": "self_attention.dense",
    "mlp.linear_fc1": "mlp.dense_h_to_4h",
    "mlp.linear_fc2": "mlp.dense_4h_to_h",
    "pre_mlp_layernorm": "post_attention_layernorm",
}
OLDEST = OLD | {
    "decoder.": "language_model.transformer.",
    "self_attention.linear_qkv": "attention.query_key_value",
    "self_attention.linear_proj": "attention.dense",
}
NEWER = OLD | {"pre_mlp_layernorm": "post_attention_norm", "input_layernorm": "input_norm"}
FUSED = {
    "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
    "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
}


def nested(names: Weights, depth: int) -> dict[str, Any]:
    """`a.b.c` as {a: {b: {c: ...}}}, the last levels together."""
    found: dict[str, Any] = {}
    for name, value in names.items():
        *path, last = name.split(".", depth)
        inner = found
        for word in path:
            inner = inner.setdefault(word, {})
        inner[last] = value
    return found


def renamed(name: str, words: dict[str, str]) -> str:
    for ours, theirs in words.items():
        name = name.replace(ours, theirs)
    return name


def save(
    root: Path, model: ModelConfig, mesh: tuple[int, int, int], *, words: dict[str, str],
    version: float = 3.0, args: Namespace | None = None, depth: int = 0, stream: bool = False,
) -> Weights:  # fmt: skip
    """Write a folder of tensor x pipeline ranks, each with `parts` of the model in turn."""
    whole = weights_of(model)
    tensors, stages, parts = mesh
    for tensor, stage in itertools.product(range(tensors), range(stages)):
        held: dict[str, Any] = {"checkpoint_version": version, "iteration": 7, "args": args}
        for part in range(parts):
            block = part * stages + stage, stages * parts
            found = part_of_rank(whole, block, (tensor, tensors), model, version)
            theirs = {renamed(name, words): value for name, value in found.items()}
            held["model" if parts == 1 else f"model{part}"] = nested(theirs, depth)
        name = f"mp_rank_{tensor:02d}" + (f"_{stage:03d}" if stages > 1 else "")
        folder = root / "iter_0000007" / name
        folder.mkdir(parents=True)
        file = folder / "model_optim_rng.pt"
        torch.save(held, file, _use_new_zipfile_serialization=not stream)
    (root / "latest_checkpointed_iteration.txt").write_text("7\n")
    return whole


def part_of_rank(
    whole: Weights, block: tuple[int, int], rank: tuple[int, int], model: ModelConfig,
    version: float,
) -> Weights:  # fmt: skip
    """A block of layers (and what stands at the ends) as one of the tensor ranks holds it."""
    each = LAYERS // block[1]
    first = block[0] * each
    found = {}
    for name, value in whole.items():
        local = in_part(name, first, each, last=first + each == LAYERS)
        if local:
            one = share(name, value, *rank, gated=model.is_gated())
            found[local] = to_version(one, version) if "linear_qkv" in name else one
    return found


def in_part(name: str, first: int, each: int, *, last: bool) -> str:
    """The name within a part of the model, or nothing."""
    if name.startswith("embedding."):
        return name if first == 0 else ""
    if not name.startswith("decoder.layers."):
        return name if last else ""
    number, _, rest = name.removeprefix("decoder.layers.").partition(".")
    inside = first <= int(number) < first + each
    return f"decoder.layers.{int(number) - first}.{rest}" if inside else ""


CASES: dict[str, dict[str, Any]] = {
    "one rank": {"mesh": (1, 1, 1), "words": OLD},
    "tensor": {"mesh": (2, 1, 1), "words": OLD},
    "pipeline": {"mesh": (1, 2, 1), "words": NEWER, "depth": 2},
    "both, nested": {"mesh": (2, 2, 1), "words": OLDEST, "depth": 3},
    "virtual": {"mesh": (2, 2, 2), "words": {}},
    "fused norms": {"mesh": (2, 1, 1), "words": FUSED},
    "version 0": {"mesh": (2, 1, 1), "words": OLDEST, "version": 0, "stream": True},
    "version 1": {"mesh": (4, 1, 1), "words": OLD, "version": 1.0},
    "version 2": {"mesh": (2, 2, 1), "words": OLD, "version": 2.0},
}


@pytest.mark.parametrize("model", [MODEL, GATED], ids=["gelu", "swiglu"])
@pytest.mark.parametrize("name", CASES)
def test_every_layout_is_put_together(tmp_path: Path, name: str, model: ModelConfig) -> None:
    whole = save(tmp_path, model, **CASES[name])
    found, _ = open_legacy(tmp_path, model)
    assert set(found) == set(whole)
    for key, value in whole.items():
        assert found[key].array().tobytes() == value.numpy().tobytes(), key


def test_experts_of_expert_ranks(tmp_path: Path) -> None:
    """mp_rank_00_001 is an expert rank where the arguments say so; grouped names too."""
    args = Namespace(
        tensor_model_parallel_size=1, pipeline_model_parallel_size=1, expert_model_parallel_size=2
    )
    model = GATED.model_copy(update={"experts": 4, "expert_ffn": FFN})
    dense = {name: value for name, value in weights_of(GATED).items() if ".mlp." not in name}
    experts, ends = {}, {"1": (2 * FFN, HIDDEN), "2": (HIDDEN, FFN)}
    for layer in range(LAYERS):
        dense[f"decoder.layers.{layer}.mlp.router.weight"] = torch.randn(4, HIDDEN)
        for expert in range(4):
            for end, shape in ends.items():
                experts[layer, expert, end] = torch.randn(shape)
    for rank in range(2):
        held = dict(dense)
        for (layer, expert, end), value in experts.items():
            key = f"decoder.layers.{layer}.mlp.experts.linear_fc{end}.weight{expert % 2}"
            if expert // 2 == rank:
                held[key] = value
        folder = tmp_path / f"mp_rank_00_{rank:03d}"
        folder.mkdir()
        state = {"model": held, "args": args, "checkpoint_version": 3.0}
        torch.save(state, folder / "model_optim_rng.pt")
    found, _ = open_legacy(tmp_path, model)
    assert len(found) == len(dense) + len(experts)
    for (layer, expert, end), value in experts.items():
        name = f"decoder.layers.{layer}.mlp.experts.local_experts.{expert}.linear_fc{end}.weight"
        assert found[name].array().tobytes() == value.numpy().tobytes()


def break_first(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = root / "iter_0000007" / "mp_rank_00" / "model_optim_rng.pt"
    held = torch.load(file, weights_only=False)
    change(held)
    torch.save(held, file)


QKV = "language_model.encoder.layers.1.self_attention.query_key_value.weight"
FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version": (lambda h: h.update(checkpoint_version=9), "checkpoint_version 9: 0, 1, 2 and 3"),
    "no model": (lambda h: h.pop("model"), "holds no model"),
    "parts": (lambda h: h.update(model0=h.pop("model"), model1={}), "different numbers of parts"),
    "lost": (lambda h: h["model"].pop(QKV), r"layers\.1\.self_attention\.linear_qkv\.weight: miss"),
    "shape": (lambda h: h["model"].update({QKV: torch.ones(3, 3)}), "shares on tensor ranks are"),
    "number": (lambda h: h.update(model=3), "found no tensors by name"),
    "loop": (lambda h: h["model"].update(again=h["model"]), "found no tensors by name"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_named(tmp_path: Path, name: str) -> None:
    save(tmp_path, MODEL, (2, 1, 1), words=OLD)
    change, words = FAULTS[name]
    break_first(tmp_path, change)
    with pytest.raises(DataError, match=words):
        open_legacy(tmp_path, MODEL)


def test_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no mp_rank_XX"):
        open_legacy(tmp_path, MODEL)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("../../etc")
    with pytest.raises(DataError, match=r"found '\.\./\.\./etc'; it must be a number or release"):
        open_legacy(tmp_path, MODEL)


def test_without_arguments_the_model_must_be_said(tmp_path: Path) -> None:
    save(tmp_path, MODEL, (1, 1, 1), words=OLD)
    with pytest.raises(UserError, match="holds no arguments; say what model it is by `model`"):
        open_legacy(tmp_path)


def test_old_versions_with_grouped_keys_are_refused(tmp_path: Path) -> None:
    save(tmp_path, MODEL, (1, 1, 1), words=OLD, version=1.0)
    with pytest.raises(UserError, match=r"checkpoint_version 1\.0 with grouped keys"):
        open_legacy(tmp_path, MODEL.model_copy(update={"kv_heads": 2}))
