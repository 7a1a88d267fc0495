"""Safetensors, against the format's own library; and headers that lie."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_jobs.convert import safetensors
from megatron_jobs.convert.files import FilePlan, write_files
from megatron_jobs.convert.matrix import Matrix, Stored
from megatron_jobs.convert.safetensors import (
    open_folder,
    open_safetensors,
    plan_safetensors,
    weight_files,
)
from megatron_jobs.errors import DataError

KINDS = (
    torch.bool, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn,
    torch.float8_e8m0fnu, torch.int16, torch.uint16, torch.float16, torch.bfloat16, torch.int32,
    torch.uint32, torch.float32, torch.complex64, torch.float64, torch.int64, torch.uint64,
)  # fmt: skip


def every_kind() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found = {f"{kind}": (torch.rand(5, 3) * 9).to(kind) for kind in KINDS}
    return found | {"number": torch.tensor(3.0), "nothing": torch.zeros(0, 4), "one": torch.rand(7)}


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def write(plans: list[FilePlan], folder: Path) -> Path:
    write_files(plans, folder, key=lambda: "")
    return folder


def test_every_kind_is_read(tmp_path: Path) -> None:
    tensors = every_kind()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = open_folder(tmp_path)
    assert set(found) == set(tensors)
    for name, matrix in found.items():
        assert matrix.shape == tuple(tensors[name].shape)
        assert matrix.array().tobytes() == raw(tensors[name]), name
    assert found["torch.bool"].array().dtype == np.bool_


def test_what_is_written_is_what_the_library_writes(tmp_path: Path) -> None:
    save_file(every_kind(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    plans = plan_safetensors(open_folder(tmp_path))
    out = write(plans, tmp_path / "out")
    written = (out / "model.safetensors").read_bytes()
    assert written == (tmp_path / "model.safetensors").read_bytes()
    assert plans[0].bytes == len(written)


def test_shards_and_their_index(tmp_path: Path) -> None:
    tensors = {f"model.layers.{n}.weight": torch.rand(10, 10) for n in range(12)}
    tensors["large"] = torch.rand(50, 50)
    ours: dict[str, Matrix] = {name: Stored(value.numpy()) for name, value in tensors.items()}
    out = write(plan_safetensors(ours, "sub", shard_bytes=2000), tmp_path / "out") / "sub"
    files = [f"model-{n:05}-of-00004.safetensors" for n in (1, 2, 3, 4)]
    assert [path.name for path in weight_files(out)] == files
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_parameters": 3700, "total_size": 14800}
    for file in files:
        held = load_file(out / file)
        assert {k for k, v in index["weight_map"].items() if v == file} == set(held)
        assert all(torch.equal(value, tensors[name]) for name, value in held.items())
    found = open_folder(out)
    assert all(found[name].array().tobytes() == raw(value) for name, value in tensors.items())


def test_transformers_writes_the_same_shards(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=64, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "theirs", max_shard_size=4000)
    theirs = tmp_path / "theirs"
    index = json.loads((theirs / "model.safetensors.index.json").read_text())
    found = open_folder(theirs)
    order = {name: found[name] for name in index["weight_map"]}
    plans = plan_safetensors(order, shard_bytes=4000)
    again = json.loads(plans[-1].items[0].before)
    assert again["metadata"] == index["metadata"]
    assert set(again["weight_map"]) == set(index["weight_map"])
    assert plans[-1].items[0].before.decode().startswith('{\n  "metadata": {\n    "total_par')


def header(value: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any, shape: Any, *offsets: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


TWO = {"a": entry("U8", [4], 0, 4), "b": entry("U8", [4], 4, 8)}
LIES = {
    "nothing": (b"", r"has 0 bytes; a safetensors file begins with 8 of a length"),
    "little": (b"1234567", r"has 7 bytes; a safetensors file begins"),
    "length": (header({}, length=1000), r"header is of 1,000 bytes, the file has 10"),
    "huge": (header({}, length=1 << 62), r"header is of 4,611,686,018,427,387,904 bytes, over"),
    "no JSON": (header(b"{nonsense"), r"header: found 9 bytes that are no JSON"),
    "no UTF-8": (header(b'{"\xff": 1}'), r"header: found 8 bytes that are no JSON"),
    "deep": (header(b"[" * 100_000), r"header: is nested too deeply"),
    "list": (header([1]), r"its header is a list, not an object"),
    "twice": (
        header(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}'),
        r"header: has the key 'a' twice",
    ),
    "no entry": (header({"a": 5}), r"a: needs dtype, shape and data_offsets"),
    "lacking": (header({"a": {"dtype": "U8"}}), r"a: needs dtype, shape and data_offsets"),
    "dtype": (header({"a": entry("F4", [1], 0, 1)}, b"1"), r"a: dtype 'F4' is not known"),
    "dtype list": (
        header({"a": entry(["U8"], [1], 0, 1)}, b"1"),
        r"a: dtype \['U8'\] is not known",
    ),
    "negative": (header({"a": entry("U8", [-1], 0, 1)}, b"1"), r"a: shape \[-1\] is none"),
    "fraction": (header({"a": entry("U8", [1.0], 0, 1)}, b"1"), r"a: shape \[1.0\] is none"),
    "truth": (header({"a": entry("U8", [True], 0, 1)}, b"1"), r"a: shape \[True\] is none"),
    "overflow": (header({"a": entry("F32", [1 << 62, 4], 0, 0)}), r"a: shape \[.*\] is none"),
    "empty": (header({"a": entry("F32", [0, 1 << 40, 1 << 40], 0, 0)}), r"a: shape \[.*\] is none"),
    "dims": (header({"a": entry("U8", [1] * 33, 0, 1)}, b"1"), r"a: shape \[.*\] is none"),
    "offsets": (header({"a": entry("U8", [1], 0)}, b"1"), r"a: data_offsets \[0\] are none"),
    "backwards": (
        header({"a": entry("U8", [1], 1, 0)}, b"1"),
        r"a: data_offsets \[1, 0\] are none",
    ),
    "size": (header({"a": entry("F32", [2], 0, 4)}, b"1234"), r"a: has 4 bytes, F32 \[2\] takes 8"),
    "overlap": (
        header(TWO | {"c": entry("U8", [2], 7, 9)}, b"123456789"),
        r"c: begins at 7, not 8: overlaps another",
    ),
    "gap": (
        header(TWO | {"c": entry("U8", [1], 9, 10)}, b"1234567890"),
        r"c: begins at 9, not 8: leaves a gap",
    ),
    "cut short": (header(TWO, b"1234567"), r"have 8 bytes, found 7: it is cut short"),
    "more": (header(TWO, b"123456789"), r"have 8 bytes, found 9: the rest is nobody's"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies(lie: str, tmp_path: Path) -> None:
    held, message = LIES[lie]
    file = tmp_path / "model.safetensors"
    file.write_bytes(held)
    with pytest.raises(DataError, match=rf"{re.escape(str(file))}.*{message}"):
        open_folder(tmp_path)


def test_a_longer_header_than_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "HEADER_BYTES", 10)
    (tmp_path / "a").write_bytes(header(TWO, b"12345678"))
    with pytest.raises(DataError, match=r"its header is of \d+ bytes, over 10"):
        open_safetensors(tmp_path / "a")


def test_honest_headers_that_look_odd(tmp_path: Path) -> None:
    odd = header({"b": TWO["b"], "a": TWO["a"], "__metadata__": {"x": "y"}}, b"12345678")
    (tmp_path / "a").write_bytes(odd)
    found = open_safetensors(tmp_path / "a")
    assert [found[name].array().tobytes() for name in ("a", "b")] == [b"1234", b"5678"]
    (tmp_path / "b").write_bytes(header({}))
    assert open_safetensors(tmp_path / "b") == {}


def folder_of(tmp_path: Path, weight_map: Any) -> Path:
    """Two files, each with one tensor, and an index."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("a", "b"):
        save_file({name: torch.zeros(3)}, folder / f"{name}.safetensors")
    save_file({"secret": torch.zeros(3)}, tmp_path / "outside.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"secret": "../outside.safetensors"}, r"names '../outside.safetensors', which is no file"),
        ({"secret": "/etc/passwd"}, r"names '/etc/passwd', which is no file of this folder"),
        ({"secret": ".."}, r"names '..', which is no file"),
        ({"secret": "link.safetensors"}, r"link.safetensors: is a link out of the folder, to /"),
        ({"a": "c.safetensors"}, r"names c.safetensors, which is not there"),
        ({"c": "a.safetensors"}, r"index.json: c: is not in a.safetensors"),
        ({"a": "b.safetensors", "b": "b.safetensors"}, r"index.json: a: is not in b.safetensors"),
        ({"a": 5}, r"index.json: needs weight_map: names of tensors to names of files"),
        ([], r"index.json: needs weight_map"),
        ({}, r"index.json: weight_map: is empty, it names no tensor"),
    ],
)
def test_an_index_that_lies(weight_map: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_folder(folder_of(tmp_path, weight_map))


def test_a_tensor_in_two_files(tmp_path: Path) -> None:
    for name in ("x", "y"):
        save_file({"a": torch.zeros(3)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(DataError, match=r"y.safetensors: a: is in x.safetensors too"):
        open_folder(tmp_path)


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    home = tmp_path / "snapshots" / "abc"
    home.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    save_file({"a": torch.ones(3)}, tmp_path / "blobs" / "123")
    (home / "model.safetensors").symlink_to("../../blobs/123")
    assert open_folder(home)["a"].array().tolist() == [1, 1, 1]


def test_a_folder_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no model.safetensors, no .*index.json and no"):
        open_folder(tmp_path)
