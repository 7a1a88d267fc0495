"""The language part of a Gemma 3 that sees pictures: there, cut over four ranks, and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    SiglipVisionConfig,
)

from megatron_jobs.errors import UserError
from megatron_jobs.stages.convert import Config, convert
from tests.family_models import GEMMA3_ANGLES, VOCAB, probe_tokens
from tests.ranks import apart

CUT = {"tensor": 2, "pipeline": 2}
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "sliding_window": 7,
    "query_pre_attn_scalar": 24,
    "rope_parameters": GEMMA3_ANGLES,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def saved(folder: Path, *, older: bool) -> nn.Module:
    """A whole model, as transformers writes it and published files are, or with its own names."""
    torch.manual_seed(5)
    config = Gemma3Config(
        text_config=Gemma3TextConfig(**TEXT),
        vision_config=SiglipVisionConfig(**VISION),
        mm_tokens_per_image=1,
        image_token_index=VOCAB - 1,
        eos_token_id=[1, 7],
    )
    config._attn_implementation = "eager"
    model = Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder, save_original_format=older)
    return model


def shorten_settings(folder: Path) -> None:
    """As published ones: the old words for angles and windows, no kinds of layers."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    text = config["text_config"]
    for name in ("layer_types", "rope_parameters", "_sliding_window_pattern", "eos_token_id",
                 "tie_word_embeddings", "hidden_activation", "rms_norm_eps"):  # fmt: skip
        text.pop(name, None)
    text |= {"rope_scaling": {"factor": 4.0, "rope_type": "linear"}}
    text |= {"rope_theta": 5000.0, "rope_local_base_freq": 300.0}
    file.write_text(json.dumps(config))


def repeat_output(folder: Path) -> None:
    """Its output layer too, which is its embedding."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"].clone()
    save_file(tensors, file, {"format": "pt"})


def check_back(folder: Path, whole: Any) -> None:
    """A model of text by itself, equal to that part of the whole one bit by bit."""
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "gemma3_text"
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert not {"text_config", "vision_config", "image_token_index"} & set(config)
    assert config["eos_token_id"] == [1, 7], "the larger model's"
    part: dict[str, Tensor] = whole.model.language_model.state_dict()
    found = load_file(folder / "model.safetensors")
    assert set(found) == {f"model.{name}" for name in part}
    assert all(torch.equal(found[f"model.{name}"], tensor) for name, tensor in part.items())
    again = Gemma3ForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = whole(probe_tokens()).logits
        assert torch.equal(again(probe_tokens()).logits, expected)
    assert expected.std() > 0.01


@pytest.mark.parametrize("older", [True, False])
def test_there_on_four_ranks_and_back(tmp_path: Path, older: bool) -> None:
    whole = saved(tmp_path / "theirs", older=older)
    (shorten_settings if older else repeat_output)(tmp_path / "theirs")
    config = Config(source=tmp_path / "theirs", mesh=CUT)
    there = apart(lambda: convert(config, tmp_path / "ours"))
    assert there["max_logit_difference"] < 1e-4
    assert there["same_greedy_share"] == 1
    parts = ("vision_tower.", "multi_modal_projector.")
    names = load_file(tmp_path / "theirs" / "model.safetensors")
    pictures = sorted(name for name in names if name.removeprefix("model.").startswith(parts))
    assert there["left_out"] == pictures
    assert len(pictures) == 34, "a tower of one layer and its ends, a projector"
    assert there["remarks"] == [
        f"the language part of a model of gemma3 alone; "
        f"{len(pictures)} tensors of other parts are left out"
    ]
    back = apart(lambda: convert(Config(source=tmp_path / "ours"), tmp_path / "back"))
    assert back["family"] == "gemma3"
    assert (back["left_out"], back["remarks"]) == ([], [])
    check_back(tmp_path / "back", whole)


def test_a_graph_is_made_of_the_part_alone(tmp_path: Path) -> None:
    saved(tmp_path / "theirs", older=True)
    with pytest.raises(UserError, match=r"holds more than text; convert it to hugging_face first"):
        convert(Config(source=tmp_path / "theirs", to="onnx"), tmp_path / "graph")
