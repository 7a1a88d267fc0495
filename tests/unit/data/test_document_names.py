"""Names of documents against plain lists of them."""

from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.data import document_names
from megatron_jobs.data.document_names import DocumentNames, names_path, write_document_names
from megatron_jobs.errors import DataError

NAMES = ["a", "", "bé", "a", "x\ny", "\0", "你好", "", "file.jsonl:12", "b" * 300, "bb", "é"]


def write(prefix: Path, names: list[str]) -> DocumentNames:
    with write_document_names(prefix) as writer:
        writer.add_names(names[:5])
        writer.add_names(names[5:])
    return DocumentNames.open(prefix)


@pytest.mark.parametrize("count", [0, 1, 2, 7, len(NAMES)])
def test_names_come_back(tmp_path: Path, count: int) -> None:
    wanted = NAMES[:count]
    names = write(tmp_path / "x", wanted)
    assert len(names) == count
    assert [names[i] for i in range(count)] == wanted == list(names)
    with pytest.raises(IndexError, match=f"document {count} of {count}"):
        names[count]


@pytest.mark.parametrize("look", [1, 3, 1 << 18])
def test_every_place_of_a_name_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: int
) -> None:
    monkeypatch.setattr(document_names, "LOOK_DOCUMENTS", look)
    monkeypatch.setattr(document_names, "LOOK_BYTES", look)
    random = np.random.default_rng(look)
    wanted = [str(random.choice(NAMES)) for _ in range(100)]
    names = write(tmp_path / "x", wanted)
    asked = [*NAMES, "nowhere", "a" * 300]
    assert names.find_all(asked) == {
        name: [i for i, found in enumerate(wanted) if found == name] for name in asked
    }
    assert list(names) == wanted
    assert names.find("你好") == [i for i, found in enumerate(wanted) if found == "你好"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.names: no such file; tokenize with names=true"):
        DocumentNames.open(tmp_path / "x")
    write(tmp_path / "x", NAMES)
    path = names_path(tmp_path / "x")
    whole = path.read_bytes()
    for content, message in [
        (b"", "found 0 bytes that are no names"),
        (b"X" + whole[1:], "that are no names of documents"),
        (whole[:-8], "cut short or damaged|names end at"),
        (whole[:8] + whole[16:], "names end at"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            DocumentNames.open(tmp_path / "x")
