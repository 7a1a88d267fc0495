"""GGUF with the default proof: every family that has a table, there and back; a planted fault."""

import contextlib
import io
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import megatron_jobs.checkpoint.conversion_proof  # noqa: F401 - once, before processes begin
from megatron_jobs.convert.conversion import Conversion
from megatron_jobs.errors import DataError
from megatron_jobs.stages.convert import Config, convert
from tests.encoder_models import bert, t5
from tests.family_models import read_tensors
from tests.gguf_files import IN_GGUF, case_folder
from tests.ranks import apart

ENCODERS = {
    "bert": lambda: bert("BertForMaskedLM"),
    "t5 1.0": lambda: t5("1.0", relative_attention_max_distance=128),
    "t5 1.1": lambda: t5("1.1", relative_attention_max_distance=128),
}
NORMS = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}


def three_ways(folder: Path) -> tuple[list[dict[str, Any]], str]:
    """Hugging Face to GGUF, that to ours, ours to GGUF; and what they wrote on the screen."""
    words: dict[str, Any] = {"to": "gguf", "gguf": "f32"}
    with contextlib.redirect_stderr(io.StringIO()) as said:
        found = [
            convert(Config(source=folder / "theirs", **words), folder / "file"),
            convert(Config(source=folder / "file/model.gguf"), folder / "ours"),
            convert(Config(source=folder / "ours", **words), folder / "again"),
        ]
    return found, said.getvalue()


@pytest.mark.parametrize("name", [*IN_GGUF, *ENCODERS])
def test_the_default_proof_there_and_back(name: str, tmp_path: Path) -> None:
    if name in ENCODERS:
        ENCODERS[name]().save_pretrained(tmp_path / "theirs")
    else:
        case_folder(name, tmp_path / "theirs")
    found, said = apart(lambda: three_ways(tmp_path))
    reader = gguf.GGUFReader(tmp_path / "file/model.gguf")
    for proof in found:
        assert proof["max_logit_difference"] < 1e-4 * max(1, proof["max_logit"])
        assert not proof["faults"]
    there, back, again = found
    assert there["tensors_read_by_gguf"] == again["tensors_read_by_gguf"] == len(reader.tensors)
    assert back["source_tensors_read_by_gguf"] == len(reader.tensors)
    assert "%|" not in said
    other = {tensor.name: tensor.data for tensor in _tensors(tmp_path / "again/model.gguf")}
    assert all(np.array_equal(tensor.data, other.pop(tensor.name)) for tensor in reader.tensors)
    assert not other


def _tensors(file: Path) -> Any:
    return gguf.GGUFReader(file).tensors


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_norms_of_gemma_are_kept_with_one_added(name: str, tmp_path: Path) -> None:
    """As llama.cpp's converter does (Gemma2Model, Gemma3Model: data_torch + 1)."""
    case_folder(name, tmp_path / "theirs")
    words: dict[str, Any] = {"to": "gguf", "gguf": "f32", "proof": "tensors"}
    convert(Config(source=tmp_path / "theirs", **words), tmp_path / "file")
    before = read_tensors(tmp_path / "theirs")
    found = {t.name: t.data for t in _tensors(tmp_path / "file/model.gguf") if "norm" in t.name}
    for key, array in found.items():
        _, layer, place, _ = key.split(".") if key.startswith("blk") else ("", "", "", "")
        theirs = f"model.layers.{layer}.{NORMS[place]}" if place else "model.norm"
        assert np.array_equal(array, before[f"{theirs}.weight"].array() + np.float32(1)), key
    assert len(found) == sum("norm" in key for key in before)


def test_a_wrong_tensor_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gate and up exchanged in the file once it is written, where only the logits can tell."""
    case_folder("llama 3.1", tmp_path / "theirs")

    def exchange(conversion: Conversion, part: Path) -> dict[str, Any]:
        reader = gguf.GGUFReader(part / "model.gguf", "r+")
        at = {tensor.name: tensor.data for tensor in reader.tensors}
        gate, up = (at[f"blk.2.ffn_{name}.weight"] for name in ("gate", "up"))
        gate[:], up[:] = up.copy(), gate.copy()
        return {}

    monkeypatch.setattr(Conversion, "read_back", exchange)
    words: dict[str, Any] = {"to": "gguf", "gguf": "f32"}
    with pytest.raises(DataError, match=r"not the same: layer 2: .*; layer 2: gate and up are sw"):
        apart(lambda: convert(Config(source=tmp_path / "theirs", **words), tmp_path / "file"))
    assert not (tmp_path / "file").exists()
