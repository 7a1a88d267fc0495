"""A model of thousands of tiny tensors, as many experts have: memory for each is bounded."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.facts import TENSOR, facts_of
from megatron_jobs.convert.families import FAMILIES
from megatron_jobs.convert.family import to_theirs
from megatron_jobs.convert.files import FilePlan, Item, write_files
from megatron_jobs.convert.leaves import shape_of
from megatron_jobs.convert.matrix import Matrix, Stored
from megatron_jobs.convert.safetensors import plan_safetensors
from megatron_jobs.convert.settings import ConversionSettings

FAMILY = FAMILIES["qwen3_moe"]
CONVERT = """
import re, sys, threading, time
from pathlib import Path
from megatron_jobs.convert.settings import ConversionSettings
from megatron_jobs.stages.convert import convert

seen = []

def watch():
    while True:  # not the peak that the kernel keeps: it has the pages of mapped files
        seen.append(int(re.search("RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]))
        time.sleep(0.001)

def peak(source, out):
    seen.clear()
    convert(ConversionSettings(source=Path(source), proof="tensors"), Path(out))
    return max(seen)

threading.Thread(target=watch, daemon=True).start()
few, many = peak(*sys.argv[1:3]), peak(*sys.argv[3:5])
print((many - few) << 10)
"""


def model_of(layers: int, experts: int) -> ModelConfig:
    sizes = {"hidden": 8, "heads": 2, "kv_heads": 2, "ffn": 8, "expert_ffn": 4}
    mixture = {"experts": experts, "experts_per_token": 2, "qk_norm": True}
    return ModelConfig(layers=layers, vocab_size=128, **sizes, **mixture)


def written(folder: Path, model: ModelConfig) -> int:
    """A model of theirs; how many tensors of ours it has."""
    layer = ("input_layernorm", "pre_mlp_layernorm", "self_attention.linear_qkv", "mlp.router",
             "self_attention.q_layernorm", "self_attention.k_layernorm",
             "self_attention.linear_proj")  # fmt: skip
    names = ["embedding.word_embeddings", "output_layer", "decoder.final_layernorm"]
    for number in range(model.layers):
        begin = f"decoder.layers.{number}."
        names += [begin + name for name in layer]
        experts = [f"{begin}mlp.experts.local_experts.{n}." for n in range(model.experts)]
        names += [expert + part for expert in experts for part in ("linear_fc1", "linear_fc2")]
    ours: dict[str, Matrix] = {
        f"{name}.weight": Stored(np.zeros(shape_of(f"{name}.weight", model), np.float32))
        for name in names
    }
    plans = plan_safetensors(to_theirs(ours, FAMILY, model))
    config = {"model_type": FAMILY.model_type, **FAMILY.config(model)}
    plans.append(FilePlan("config.json", [Item(json.dumps(config).encode())]))
    write_files(plans, folder, key=lambda: "key")
    return len(ours)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Models by how many tensors they have."""
    root = tmp_path_factory.mktemp("models")
    sizes = {"few": (1, 2), "many": (8, 200)}
    return {written(root / name, model_of(*size)): root / name for name, size in sizes.items()}


def test_memory_for_each_tensor_is_what_is_said(places: dict[int, Path], tmp_path: Path) -> None:
    """There: 4,859 of theirs. The interpreter frees nothing before, so this is the whole peak."""
    (few, small), (many, large) = places.items()
    words = [small, tmp_path / "small", large, tmp_path / "large"]
    asked = [sys.executable, "-c", CONVERT, *map(str, words)]
    grown = int(subprocess.run(asked, capture_output=True, check=True).stdout)
    assert many > 3000
    assert grown / (many - few) < TENSOR
    facts = [facts_of(ConversionSettings(source=place), {}) for place in (small, large)]
    one, other = (fact.stream_bytes for fact in facts if fact is not None)
    assert other - one == TENSOR * (many - few)
