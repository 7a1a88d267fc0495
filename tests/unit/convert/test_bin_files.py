"""pytorch_model.bin, one or several, as transformers reads them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from megatron_jobs.convert.bin_files import INDEX, WHOLE, open_bin_folder
from megatron_jobs.errors import DataError

TENSORS = {f"t{n}": torch.randn(n + 1, 3) for n in range(4)}


def save_shards(folder: Path, weight_map: dict[str, Any] | None = None) -> None:
    files = {name: f"pytorch_model-0000{n % 2 + 1}-of-00002.bin" for n, name in enumerate(TENSORS)}
    for file in set(files.values()):
        torch.save({n: t for n, t in TENSORS.items() if files[n] == file}, folder / file)
    index = {"metadata": {}, "weight_map": files if weight_map is None else weight_map}
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_of_transformers(tmp_path: Path, stream: bool) -> None:
    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=50, tie_word_embeddings=True,
    )  # fmt: skip
    state = LlamaForCausalLM(config).state_dict()
    torch.save(state, tmp_path / WHOLE, _use_new_zipfile_serialization=not stream)
    found = open_bin_folder(tmp_path)
    assert list(found) == list(state)
    for name, value in state.items():
        assert found[name].array().tobytes() == value.numpy().tobytes()


def test_shards(tmp_path: Path) -> None:
    save_shards(tmp_path)
    found = open_bin_folder(tmp_path)
    assert set(found) == set(TENSORS)
    for name, value in TENSORS.items():
        assert found[name].array().tobytes() == value.numpy().tobytes()


FIRST, SECOND = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"
MAPS: dict[str, tuple[Any, str]] = {
    "climbs": ({"t0": "../x.bin"}, r"names '\.\./x\.bin', which is no file of this folder"),
    "absolute": ({"t0": "/etc/passwd"}, "names '/etc/passwd', which is no file of this folder"),
    "missing": ({"t0": "y.bin"}, r"names y\.bin, which is not there"),
    "elsewhere": ({"t0": SECOND, "t1": SECOND, "t2": FIRST, "t3": SECOND}, "t0: is not in"),
    "unknown": ({"t0": FIRST, "t9": FIRST}, "t9: is not in"),
    "no names": ({"t0": 3}, "needs weight_map"),
}


@pytest.mark.parametrize("name", MAPS)
def test_an_index_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    weight_map, words = MAPS[name]
    save_shards(tmp_path, weight_map)
    with pytest.raises(DataError, match=words):
        open_bin_folder(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    torch.save(TENSORS, tmp_path / "secret.bin")
    (tmp_path / "model" / WHOLE).symlink_to(tmp_path / "secret.bin")
    with pytest.raises(DataError, match="is a link out of the folder"):
        open_bin_folder(tmp_path / "model")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    save_shards(tmp_path)
    torch.save(TENSORS, tmp_path / SECOND)
    with pytest.raises(DataError, match=r"t0: is in pytorch_model-00001-of-00002\.bin too"):
        open_bin_folder(tmp_path)


def test_what_is_no_tensor_is_refused(tmp_path: Path) -> None:
    for value, words in (
        ({"a": 1}, "a: is a int, no tensor"),
        ([torch.ones(1)], "holds a list, not tensors by name"),
        ({"a": torch.ones(2).to_sparse()}, r"asks for torch\._utils\._rebuild_sparse_tensor"),
    ):
        torch.save(value, tmp_path / WHOLE)
        with pytest.raises(DataError, match=words):
            open_bin_folder(tmp_path)
    (tmp_path / WHOLE).unlink()
    with pytest.raises(DataError, match=r"holds no pytorch_model\.bin and no"):
        open_bin_folder(tmp_path)
