"""Names of files and documents, equal for whoever reads them."""

from pathlib import Path

from megatron_jobs.text.documents import Document, read_documents
from megatron_jobs.text.names import given, id_of, name_files
from megatron_jobs.text.readers import ReadRules, cut_units, input_files, read_unit
from megatron_jobs.text.record import Record
from megatron_jobs.text.sources import cut, text_files
from tests.warcs import write


def names(*inputs: tuple[str, list[str]]) -> list[list[str]]:
    return name_files(
        [given(Path(path), [Path(path, one) for one in some]) for path, some in inputs]
    )


def test_files_are_called_from_their_input_on() -> None:
    assert names(("/c/web", ["a", "b/a"]), ("/c/a", [""])) == [["web/a", "web/b/a"], ["a"]]


def test_folders_above_tell_inputs_apart() -> None:
    one, two, other = ("/c/web/documents", ["0", "1"]), ("/c/books/documents", ["1"]), ("/x", ["1"])
    assert names(one, two, other) == [
        ["web/documents/0", "web/documents/1"], ["books/documents/1"], ["x/1"],
    ]  # fmt: skip
    assert names(("/a/x/d", ["1"]), ("/b/x/d", ["1"])) == [["a/x/d/1"], ["b/x/d/1"]]
    assert names(("/x/d", ["1"]), ("/y/x/d", ["1"]), ("/d", ["1"])) == [
        ["/x/d/1"], ["y/x/d/1"], ["/d/1"],
    ]  # fmt: skip


def test_an_input_twice_shares_its_names() -> None:
    one = ("/c/web", ["a"])
    assert names(one, one) == [["web/a"], ["web/a"]]
    assert names(one, ("/c/../c/web", ["a"])) == [["web/a"], ["web/a"]]
    assert names(one, one, ("/d/web", ["a"])) == [["c/web/a"], ["c/web/a"], ["d/web/a"]]


def test_files_of_two_inputs(tmp_path: Path) -> None:
    for name in ("web", "books"):
        (tmp_path / name / "documents").mkdir(parents=True)
        write(tmp_path / name / "documents/0.jsonl", b"{}")
    local = [tmp_path / "web/documents", tmp_path / "books/documents"]
    address = f"file://{tmp_path}/web/documents/0.jsonl"
    found = [file.name for file in input_files(local, [address])]
    assert found == ["web/documents/0.jsonl", "books/documents/0.jsonl", address]


def test_both_readers_name_alike(tmp_path: Path) -> None:
    lines = b'{"text": "a"}\n{"text": "b", "id": 0}\n{"text": "c", "id": %d}\n' % 10**25
    inputs = [tmp_path / name / "documents" for name in ("web", "books")]
    for folder in inputs:
        folder.mkdir(parents=True)
        write(folder / "0.jsonl", lines)
    units = cut_units(input_files(inputs), 1000)
    records = [item for unit in units for item in read_unit(unit, ReadRules())]
    ids = [item.id for item in records if isinstance(item, Record)]
    pieces = [piece for part in cut(text_files(inputs), 2) for piece in part]
    names = [
        found.id or f"{piece.file.name}:{found.number}"
        for piece in pieces
        for found in read_documents(piece, key="text", limit=100)
        if isinstance(found, Document)
    ]
    assert ids == names
    assert ids[:3] == ["web/documents/0.jsonl:1", "0", str(10**25)]


def test_ids() -> None:
    wanted = {0: "0", -3: "-3", 10**30: str(10**30), "é": "é", "": "", 1.5: "", None: "", True: ""}
    assert {value: id_of(value) for value in [*wanted, True]} == wanted
    assert (id_of("\ud800"), id_of(["a"])) == ("", "")
