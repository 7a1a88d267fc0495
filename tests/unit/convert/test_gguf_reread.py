"""What llama.cpp's package reads in a GGUF file, against what our reader does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from megatron_jobs.convert import gguf_reread
from megatron_jobs.convert.gguf_in import open_gguf
from megatron_jobs.convert.gguf_out import GgufFormat
from megatron_jobs.convert.gguf_reread import UnreadableError, reread
from megatron_jobs.convert.matrix import Stored
from megatron_jobs.errors import DataError
from tests.gguf_files import in_parts, write_case

HIDDEN = {"hidden_size": 64, "intermediate_size": 96}


@pytest.mark.parametrize("form", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_both_read_the_same(form: GgufFormat, tmp_path: Path) -> None:
    path = write_case("mixtral", tmp_path, form, odd=HIDDEN)
    assert reread(path) == len(gguf.GGUFReader(path).tensors) == 43


def test_all_parts_of_a_model_are_read(tmp_path: Path) -> None:
    parts = in_parts(write_case("llama", tmp_path), tmp_path / "parts", most=20)
    assert reread(parts[0]) == sum(len(gguf.GGUFReader(part).tensors) for part in parts)


def test_what_is_read_otherwise_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_case("llama", tmp_path)
    opened = open_gguf(path)
    name, key = "blk.3.ffn_down.weight", "llama.rope.freq_base"

    def ours_is(**other: Any) -> None:
        file = replace(opened.file, **other)
        monkeypatch.setattr(gguf_reread, "open_gguf", lambda _: replace(opened, file=file))

    tensors, values = opened.file.tensors, opened.file.metadata
    wrong = tensors[name].array().copy()
    wrong[-1, -1] = np.nextafter(wrong[-1, -1], 1)
    ours_is(tensors=tensors | {name: Stored(wrong)})
    with pytest.raises(DataError, match=f"{name}: .* reads other numbers than we do, from row 0"):
        reread(path)
    ours_is(tensors=tensors | {name: Stored(wrong.T)})
    with pytest.raises(DataError, match=r"we read \[48, 32\], llama.cpp's .* gguf \[32, 48\]"):
        reread(path)
    ours_is(tensors=tensors | {"more": Stored(wrong)})
    with pytest.raises(DataError, match=r"more: llama\.cpp's package gguf does not find it"):
        reread(path)
    ours_is(tensors={key: matrix for key, matrix in tensors.items() if key != name})
    with pytest.raises(DataError, match=f"{name}: only llama.cpp's package gguf finds it"):
        reread(path)
    ours_is(metadata=values | {key: 1.0})
    with pytest.raises(DataError, match=f"{key}: we read 1.0, llama.cpp's package gguf 10000.0"):
        reread(path)


def test_what_the_package_cannot_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_case("llama", tmp_path)

    def fail(_: Path) -> None:
        raise ValueError("no such version")

    monkeypatch.setattr(gguf, "GGUFReader", fail)
    with pytest.raises(UnreadableError, match="cannot read it: ValueError: no such version"):
        reread(path)
