"""Models in several GGUF files: written by llama.cpp's own package, read as one, and broken."""

import re
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from megatron_jobs.convert.gguf_in import OpenedGGUF, open_gguf
from megatron_jobs.convert.source import kind_of, open_source
from megatron_jobs.errors import DataError, UserError
from tests.gguf_files import in_parts, write_case


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """A model in four files; the whole lies at whole/model.gguf."""
    whole = write_case("llama", tmp_path / "model")
    shutil.copytree(whole.parent, tmp_path / "whole")
    found = in_parts(whole, tmp_path / "parts", most=12)
    assert [path.name for path in found] == [f"m-0000{n}-of-00004.gguf" for n in range(1, 5)]
    return found


def check_same(found: OpenedGGUF, other: OpenedGGUF) -> None:
    assert found.config == other.config
    assert found.file.kinds == other.file.kinds
    assert set(found.tensors) == set(other.tensors)
    for name, matrix in found.tensors.items():
        assert np.array_equal(matrix.array(), other.tensors[name].array()), name


def test_any_part_and_the_folder_are_the_whole(parts: list[Path], tmp_path: Path) -> None:
    whole = open_gguf(tmp_path / "whole/model.gguf")
    for given in (parts[0], parts[2], parts[0].parent):
        check_same(open_gguf(given), whole)
        assert open_source(given).files() == parts
    check_same(open_gguf(tmp_path / "whole"), whole)
    assert kind_of(parts[0].parent)[0] == "gguf"
    (parts[0].parent / "config.json").write_text("{}")
    assert kind_of(parts[0].parent)[0] == "gguf"


def test_a_folder_of_two_models_is_refused(parts: list[Path], tmp_path: Path) -> None:
    shutil.copy(tmp_path / "whole/model.gguf", parts[0].parent)
    rule = r"holds m-00001-of-00004\.gguf, model\.gguf; name one file"
    with pytest.raises(UserError, match=rule):
        open_gguf(parts[0].parent)


def test_a_part_that_is_missing_or_renamed_is_named(parts: list[Path]) -> None:
    odd = parts[1].rename(parts[1].with_name("odd.gguf"))
    rule = r"m-00003-of-00004\.gguf: 1 of 00004 parts are not beside it: m-00002-of-00004\.gguf"
    with pytest.raises(DataError, match=rule):
        open_gguf(parts[2])
    with pytest.raises(DataError, match=r"odd.gguf: split.count 4: one of several parts is named"):
        open_gguf(odd)
    shutil.copy(parts[2], parts[1])
    with pytest.raises(DataError, match=r"m-00002-of-00004\.gguf: split.no: found 2, it must be 1"):
        open_gguf(parts[0])
    other = parts[0].with_name("m-00001-of-00003.gguf")
    shutil.copy(parts[0], other)
    with pytest.raises(DataError, match=r"split.count 4: its name says 3"):
        open_gguf(other)


def rewritten(path: Path, *, drop: str = "", add: dict[str, np.ndarray] | None = None,
              **values: Any) -> None:  # fmt: skip
    """A part with other metadata or tensors."""
    reader = gguf.GGUFReader(path)
    metadata = {
        key: (field.contents(), field.types[0])
        for key, field in reader.fields.items()
        if key.startswith("split.")
    }
    kept = {t.name: np.array(t.data) for t in reader.tensors if t.name != drop} | (add or {})
    writer = gguf.GGUFWriter(path.with_suffix(".new"), "llama")
    writer.kv_data[0].clear()
    for key, (value, kind) in metadata.items():
        writer.add_key_value(key, values.pop(key, value), kind)
    for key, value in values.items():
        writer.add_string(key, value)
    for name, array in kept.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"split.count": 5}, r"m-00002-of-00004.gguf: split.count: found 5, it must be 4"),
        ({"drop": "blk.1.attn_q.weight"}, r"split.tensors.count: found 39, all parts .* have 38"),
        (
            {"drop": "blk.1.attn_q.weight", "add": {"output.weight": np.ones((3, 4), np.float32)}},
            r"tensor 'output.weight': m-00001-of-00004.gguf has it too",
        ),
        (
            {"general.architecture": "gemma2"},
            r"00002.* general.architecture: found 'gemma2', m-00001-of-00004.gguf has 'llama'",
        ),
        ({"general.name": "odd"}, r"general.name: found 'odd', .* parts of one model agree"),
    ],
)
def test_parts_that_do_not_agree_are_refused(
    change: dict[str, Any], rule: str, parts: list[Path]
) -> None:
    rewritten(parts[1])
    open_gguf(parts[0])
    names = [tensor.name for tensor in gguf.GGUFReader(parts[1]).tensors]
    change = {k: names[0] if k == "drop" else v for k, v in change.items()}
    rewritten(parts[1], **change)
    with pytest.raises(DataError, match=rule) as error:
        open_gguf(parts[0])
    assert re.search(r"00001|00002", str(error.value))
