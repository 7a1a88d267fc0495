"""Frequencies and magnitudes are those of transformers, for every kind of stretch."""

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.model.rope import Rope, rope_of

COLUMNS, SEQ_LEN = 16, 4096
FACTORS = [1.0 + 0.25 * place for place in range(COLUMNS // 2)]
KINDS: dict[str, dict[str, Any]] = {
    "linear": {"factor": 4.0},
    "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "llama3 narrow": {"factor": 32.0, "low_freq_factor": 2.0, "high_freq_factor": 2.5},
    "yarn": {"factor": 4.0},
    "yarn to seq_len": {"factor": None},
    "yarn shrunk": {"factor": 0.5},
    "yarn bounds": {"factor": 16.0, "beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
    "yarn no ramp": {"factor": 4.0, "beta_fast": 1e-3, "beta_slow": 1e-4},
    "yarn deepseek": {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.2},
    "yarn one scale": {"factor": 40.0, "mscale": 0.707},
    "yarn given": {"factor": 4.0, "attention_factor": 1.25},
    "longrope": {"short_factor": FACTORS, "long_factor": FACTORS[::-1]},
    "longrope factor": {"short_factor": FACTORS, "long_factor": FACTORS[::-1], "factor": 2.0},
    "longrope given": {
        "short_factor": FACTORS,
        "long_factor": FACTORS[::-1],
        "attention_factor": 1.1,
    },
}
OURS = {"short_factor": "short_factors", "long_factor": "long_factors"}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("length", [100, 2000])
def test_angles_are_those_of_transformers(name: str, length: int) -> None:
    kind, values = name.split()[0], KINDS[name]
    angles = {"rope_type": kind, "rope_theta": 5000.0, "original_max_position_embeddings": 1024}
    plain = LlamaConfig(
        hidden_size=2 * COLUMNS,
        num_attention_heads=2,
        max_position_embeddings=SEQ_LEN,
        rope_parameters=angles | values,
    )
    expected, magnitude = ROPE_INIT_FUNCTIONS[kind](plain, torch.device("cpu"), seq_len=length)
    ours = {OURS.get(key, key): value for key, value in values.items()}
    scaling = RopeScaling(kind=kind, original_seq_len=1024, **ours)  # type: ignore[arg-type]
    rope = Rope(COLUMNS, 5000, scaling, SEQ_LEN, interleaved=False)
    assert_close(rope.frequencies(long=length > 1024), expected, rtol=1e-6, atol=0)
    assert_close(rope.magnitude(), magnitude)
    cos, sin = rope.turns(length, like=torch.zeros(1))
    wanted = torch.arange(length).float()[:, None] * expected
    assert_close(cos[:length, : COLUMNS // 2], wanted.cos() * magnitude, rtol=0, atol=2e-4)
    assert_close(sin[:length, COLUMNS // 2 :], wanted.sin() * magnitude, rtol=0, atol=2e-4)


def test_plain_angles() -> None:
    """Position p turns pair i by p / base^(2 i / columns)."""
    rope = Rope(4, 100, None, 64, interleaved=True)
    assert_close(rope.frequencies(), torch.tensor([1.0, 0.1]))
    cos, sin = rope.turns(4, like=torch.zeros(1, dtype=torch.bfloat16))
    angles = [3.0, 3.0, 0.3, 0.3]
    assert cos.dtype == torch.bfloat16
    assert cos[3].tolist() == torch.tensor([math.cos(a) for a in angles]).bfloat16().tolist()
    assert sin[3].tolist() == torch.tensor([math.sin(a) for a in angles]).bfloat16().tolist()


def test_tables_are_made_once() -> None:
    ropes = [Rope(6, 77, None, 64, interleaved=False) for _ in range(2)]
    tables = [rope.turns(length, like=torch.zeros(1))[0] for rope in ropes for length in (3, 200)]
    assert all(table is tables[0] for table in tables)


def test_only_longrope_bends() -> None:
    yarn = RopeScaling(kind="yarn", factor=2.0, original_seq_len=32)
    long = yarn.model_copy(update={"kind": "longrope"})
    bends = [Rope(4, 100, s, 64, interleaved=False).bend() for s in (None, yarn, long)]
    assert bends == [None, None, 32]


def test_a_layer_has_no_angles_without_rope() -> None:
    model = ModelConfig(layers=1, hidden=32, heads=4, vocab_size=128, rope_share=0.5)
    assert rope_of(model, 0) == Rope(4, 10000, None, 2048, interleaved=False)
    assert rope_of(model.model_copy(update={"position": "learned"}), 0) is None
