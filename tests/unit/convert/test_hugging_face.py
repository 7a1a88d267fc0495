"""Which files go along with a model, and the config.json that is written."""

import json
import logging
from pathlib import Path

import pytest
import torch
import transformers

from megatron_jobs.convert.hugging_face import (
    read_described,
    tokenizer_files,
    tokenizer_folder,
    written_config,
)
from megatron_jobs.errors import DataError
from tests.family_models import saved_model

TEMPLATES = {"default": "{{ messages }}", "rag": "{{ documents }}", "tool_use": "{{ tools }}"}


def test_all_that_transformers_writes_goes_along(tmp_path: Path) -> None:
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=transformers.GPT2Tokenizer()._tokenizer, eos_token="<|endoftext|>"
    )
    made.chat_template = TEMPLATES
    made.save_pretrained(tmp_path)
    for name in ("chat_template.json", "tekken.json", "tokenizer.model.v3", "spiece.model",
                 "sentencepiece.bpe.model", "merges.txt", "vocab.txt"):  # fmt: skip
        (tmp_path / name).touch()
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert tmp_path / "additional_chat_templates/rag.jinja" in written
    (tmp_path / "preprocessor_config.json").touch()
    (tmp_path / "model.safetensors").touch()
    assert set(tokenizer_files(tmp_path)) == written


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer.model.v3", "additional_chat_templates/rag.jinja"]
)
def test_a_link_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "model", tmp_path / "blobs" / "of_another"
    (folder / name).parent.mkdir(parents=True)
    outside.parent.mkdir()
    outside.write_text("{}")
    (folder / name).symlink_to(outside)
    with pytest.raises(DataError, match=rf"model: {name}: is a link out of the folder, to /.*/of_"):
        tokenizer_files(folder)
    outside.unlink()
    with pytest.raises(DataError, match=rf"model: {name}: is a link out of the folder, to /"):
        tokenizer_files(folder)
    (folder / name).unlink()
    (folder / "there").touch()
    (folder / name).symlink_to(folder / "there")
    assert tokenizer_files(folder) == [folder / name]
    (folder / "there").unlink()
    with pytest.raises(DataError, match=rf"model: names {name}, which is not there"):
        tokenizer_files(folder)


def test_a_tokenizer_that_is_named_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "tok").mkdir()
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "tok/tokenizer.json").symlink_to("../other.json")
    with pytest.raises(DataError, match=r"tok: tokenizer\.json: is a link out of the folder"):
        tokenizer_folder(tmp_path / "tok/tokenizer.json")


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    home = tmp_path / "snapshots" / "abc"
    (home / "additional_chat_templates").mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "123").write_text("{}")
    (home / "tokenizer.json").symlink_to("../../blobs/123")
    (home / "additional_chat_templates/rag.jinja").symlink_to("../../../blobs/123")
    assert [path.name for path in tokenizer_files(home)] == ["tokenizer.json", "rag.jinja"]


def test_older_readers_find_the_number_format(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers before 4.56 knows torch_dtype alone; the newer reads both without a word."""
    saved_model("llama", tmp_path)
    found = read_described(tmp_path)
    made = written_config(
        found.model, found.family, dtype="bfloat16", tokenizer=None, before=found.config
    )
    assert (made["dtype"], made["torch_dtype"]) == ("bfloat16", "bfloat16")
    (tmp_path / "config.json").write_text(json.dumps(made))
    transformers.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        read = transformers.AutoConfig.from_pretrained(tmp_path)
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    transformers.logging.disable_propagation()
    assert read.dtype == model.dtype == torch.bfloat16
    assert not [record for record in caplog.records if "dtype" in record.getMessage()]
