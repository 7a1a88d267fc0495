"""GGUF proved by logits: models in several files, encoders without the heads that GGUF lacks."""

from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.errors import DataError
from tests.encoder_models import bert, t5
from tests.end.test_conversion import check_equal, converted
from tests.family_models import read_tensors
from tests.gguf_files import case_folder, in_parts


def test_a_t5_there_and_back(tmp_path: Path) -> None:
    t5("1.0", relative_attention_max_distance=128).save_pretrained(tmp_path / "theirs")
    found = converted(tmp_path / "theirs", tmp_path / "file", to="gguf", gguf="f32")
    assert 0 < found["max_logit_difference"] < 1e-4
    converted(tmp_path / "file", tmp_path / "back", to="hugging_face", proof="tensors")
    check_equal(tmp_path / "theirs", tmp_path / "back")


def test_the_encoder_of_a_bert_there_and_back(tmp_path: Path) -> None:
    model = bert("BertForPreTraining")
    model.save_pretrained(tmp_path / "theirs")
    found = converted(tmp_path / "theirs", tmp_path / "file", to="gguf", gguf="f32")
    assert 0 < found["max_logit_difference"] < 1e-4
    assert "9 tensors of the heads are left out" in str(found["remarks"])
    converted(tmp_path / "file", tmp_path / "back", to="hugging_face")
    before, after = read_tensors(tmp_path / "theirs"), read_tensors(tmp_path / "back")
    for name, matrix in after.items():
        assert matrix.array().tobytes() == before["bert." + name].array().tobytes(), name


def test_a_model_in_parts_is_converted_and_proved(tmp_path: Path) -> None:
    case_folder("deepseek_v3", tmp_path / "theirs")
    converted(tmp_path / "theirs", tmp_path / "file", to="gguf", gguf="f32", proof="tensors")
    parts = in_parts(tmp_path / "file/model.gguf", tmp_path / "parts", most=20)
    assert len(parts) > 3
    words: dict[str, Any] = {"to": "hugging_face"}
    found = converted(parts[1], tmp_path / "back", **words)
    assert found["max_logit_difference"] < 1e-4
    check_equal(tmp_path / "theirs", tmp_path / "back")
    parts[2].unlink()
    with pytest.raises(DataError, match=r"1 of \d+ parts are not beside it: m-00003-of-"):
        converted(tmp_path / "parts", tmp_path / "more", **words)
