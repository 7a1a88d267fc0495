"""What is written for transformers is what was read from it: tensors, and what config.json means.

Every decoder of tests/family_models.py goes from a folder of transformers to ours and back.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families import FAMILIES
from megatron_jobs.convert.family import to_theirs
from tests.family_models import CASES, family_of, probe_tokens, read_model, saved_model


def meant(model: ModelConfig) -> dict[str, Any]:
    """Settings, those that are left to others' values written out."""
    written = {"head_dim": model.head_size(), "kv_heads": model.groups(), "ffn": model.ffn_size()}
    return model.model_dump() | written


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    """Bit-equal tensors; a config.json of our settings alone gives the same logits."""
    source, target = tmp_path / "theirs", tmp_path / "back"
    plain, family = saved_model(name, source), family_of(name)
    model, ours = read_model(name, source)
    assert not family.misfit(model)
    back = {key: matrix.array() for key, matrix in to_theirs(ours, family, model).items()}
    before = load_file(source / "model.safetensors")
    assert back.keys() == before.keys()
    assert all(np.array_equal(back[key], before[key]) for key in before)

    target.mkdir()
    save_file(back, target / "model.safetensors", {"format": "pt"})
    config = {"model_type": family.model_type, "architectures": [family.architecture]}
    read = json.loads((source / "config.json").read_text())
    config |= {key: read[key] for key in read if key.endswith("_token_id")}
    config |= family.config(model)
    (target / "config.json").write_text(json.dumps(config))
    loaded = AutoModelForCausalLM.from_pretrained(target, attn_implementation="eager").eval()
    assert type(loaded).__name__ == family.architecture
    with torch.no_grad():
        found, expected = (m(probe_tokens()).logits for m in (loaded, plain))
    assert torch.equal(found, expected)
    assert meant(ModelConfig(**family.settings(config))) == meant(model)
    for other in FAMILIES.values():  # one that takes it too must mean the same by it
        if not other.misfit(model):
            again = ModelConfig(**other.settings(other.config(model)))
            assert meant(again) == meant(model), other.name
