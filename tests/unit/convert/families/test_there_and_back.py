"""Every decoder of transformers, in our form and back: each bit, each name, and its behaviour."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.settings import all_problems
from megatron_jobs.convert.family import to_theirs
from megatron_jobs.convert.hugging_face import described, written_config
from megatron_jobs.convert.leaves import shape_of
from tests.family_models import (
    CASES,
    family_of,
    probe_tokens,
    read_model,
    read_tensors,
    saved_model,
)


def spelled_out(model: ModelConfig) -> ModelConfig:
    """With the sizes that follow from others."""
    return model.model_copy(update={"head_dim": model.head_size(), "kv_heads": model.groups()})


@pytest.mark.parametrize("name", CASES)
def test_every_tensor_comes_back(name: str, tmp_path: Path) -> None:
    saved_model(name, tmp_path)
    model, ours = read_model(name, tmp_path)
    assert {key: matrix.shape for key, matrix in ours.items()} == {
        key: shape_of(key, model) for key in ours
    }
    before, after = read_tensors(tmp_path), to_theirs(ours, family_of(name), model)
    assert set(after) == set(before)
    for key, matrix in after.items():
        assert np.array_equal(matrix.array(), before[key].array()), key


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_computes_the_same(name: str, tmp_path: Path) -> None:
    """config.json says the same settings to us, and the same model, bit by bit, to transformers."""
    plain, family = saved_model(name, tmp_path), family_of(name)
    model, _ = read_model(name, tmp_path)
    assert family.misfit(model) == ""
    config = written_config(model, family, dtype="float32", tokenizer=None, before=None)
    assert spelled_out(described(config, "config.json").model) == spelled_out(model)
    assert not list(all_problems(model))
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "config.json").write_text(json.dumps(config))
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "again")
    again = getattr(transformers, family.architecture).from_pretrained(
        tmp_path / "again", attn_implementation="eager"
    )
    with torch.no_grad():
        assert torch.equal(again.eval()(probe_tokens()).logits, plain(probe_tokens()).logits)
