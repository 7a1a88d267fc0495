"""A model in fp8, scales by blocks of 16, beside what transformers makes of it."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from megatron_jobs.stages.convert import Config, convert
from tests.family_models import saved_model
from tests.ranks import apart

BLOCK = 16


def quantised(folder: Path) -> dict[str, torch.Tensor]:
    """A folder as transformers reads it; the numbers that it means."""
    saved_model("llama", folder)
    draw = torch.Generator().manual_seed(3)
    meant, kept = {}, {}
    for name, weight in load_file(folder / "model.safetensors").items():
        meant[name] = kept[name] = weight
        if "_proj" in name:
            rows, columns = weight.shape
            grid = (-(-rows // BLOCK), -(-columns // BLOCK))
            scales = (torch.rand(grid, generator=draw) + 0.5) / 50
            kept[name] = (weight * 50).to(torch.float8_e4m3fn)
            kept[f"{name}_scale_inv"] = scales
            wide = torch.kron(scales, torch.ones(BLOCK, BLOCK))[:rows, :columns]
            meant[name] = kept[name].float() * wide
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    scheme = {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    more = {"quantization_config": scheme, "dtype": "float32"}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    return meant


def test_fp8_becomes_what_it_means(tmp_path: Path) -> None:
    meant = quantised(tmp_path / "theirs")
    found = apart(lambda: convert(Config(source=tmp_path / "theirs"), tmp_path / "ours"))
    assert found["max_logit_difference"] < 1e-5
    convert(Config(source=tmp_path / "ours", proof="tensors"), tmp_path / "back")
    back = load_file(tmp_path / "back/model.safetensors")
    assert set(back) == set(meant)
    assert all(torch.equal(back[name], meant[name]) for name in meant)
    assert "quantization_config" not in json.loads((tmp_path / "back/config.json").read_text())
