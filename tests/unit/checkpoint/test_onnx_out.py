"""A decoder as ONNX: onnxruntime's logits, any batch, any length; what is refused."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_jobs.checkpoint import onnx_out
from megatron_jobs.checkpoint.onnx_out import MODEL, PACKAGES, check_packages, write_onnx
from megatron_jobs.errors import DataError, UserError
from tests.family_models import probe_tokens, saved_model

ABSENT = [name for name in PACKAGES if importlib.util.find_spec(name) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(ABSENT), reason=f"absent: {', '.join(ABSENT)}")
def test_onnxruntime_computes_the_same(tmp_path: Path) -> None:
    import onnxruntime

    plain = saved_model("llama", tmp_path / "hf")
    assert write_onnx(tmp_path / "hf", tmp_path / "onnx") < 1e-5
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / MODEL))
    for tokens in (probe_tokens(), probe_tokens(3), probe_tokens(1)[:1]):
        with torch.no_grad():
            expected = plain(tokens).logits.numpy()
        (found,) = session.run(None, {"input_ids": tokens.numpy()})
        assert np.abs(found - expected).max() < 1e-4
    assert (tmp_path / "onnx" / "config.json").is_file()
    assert not (tmp_path / "onnx" / "model.safetensors").exists()


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_out, "PACKAGES", ("torch", "nonsense_a", "nonsense_b"))
    rule = r"onnx: nonsense_a, nonsense_b not installed; pip install 'megatron-jobs\[onnx\]'"
    with pytest.raises(UserError, match=rule):
        check_packages()


def test_what_is_no_decoder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_out, "PACKAGES", ())
    with pytest.raises(DataError, match=r"no config.json; not a Hugging Face model"):
        write_onnx(tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="is there already"):
        write_onnx(tmp_path, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="transformers knows no such decoder"):
        write_onnx(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_logits_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_out, "PACKAGES", ())
    monkeypatch.setattr(onnx_out, "_export", lambda model, file: file.write_bytes(b"x"))
    saved_model("llama", tmp_path)
    for error in (0.2, float("nan")):
        monkeypatch.setattr(onnx_out, "largest_error", lambda *asked, error=error: error)
        with pytest.raises(DataError, match="not written: its logits differ by"):
            write_onnx(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
