"""Files elsewhere, by way of fsspec's own file system in memory."""

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.text.readers import ReadRules, cut_units, input_files, read_unit
from tests.stages import shorten
from tests.warcs import packed, page, told

RULES = ReadRules(pages=True)


@pytest.fixture
def place() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.pipe("/crawl/b.warc.gz", packed(page(3)))
    system.pipe("/crawl/a.warc.gz", packed(page(1), page(2)))
    system.pipe("/crawl/notes.doc", b"x")
    lines = [json.dumps({"id": str(n), "text": "x" * n}) for n in range(40)]
    system.pipe("/lines/a.jsonl", "\n".join(lines).encode())
    yield system
    system.rm("/crawl", recursive=True)
    system.rm("/lines", recursive=True)


@pytest.mark.usefixtures("place")
def test_patterns_and_addresses() -> None:
    files = input_files([], ["memory://crawl/*.warc.gz", "memory://lines/a.jsonl"])
    assert [file.name for file in files] == [
        "memory:///crawl/a.warc.gz", "memory:///crawl/b.warc.gz", "memory://lines/a.jsonl",
    ]  # fmt: skip
    items = [item for unit in cut_units(files, 100) for item in read_unit(unit, RULES)]
    assert told(items) == ["1", "2", "3", *(str(n) for n in range(40))]


@pytest.mark.usefixtures("place")
def test_another_version_has_another_stamp(place: fsspec.AbstractFileSystem) -> None:
    before = input_files([], ["memory://crawl/a.warc.gz"])
    assert input_files([], ["memory://crawl/a.warc.gz"]) == before
    place.rm("/crawl/a.warc.gz")
    place.pipe("/crawl/a.warc.gz", packed(page(2), page(1)))
    assert input_files([], ["memory://crawl/a.warc.gz"])[0].stamp != before[0].stamp


@pytest.mark.usefixtures("place")
def test_what_cannot_be_read() -> None:
    for url, words in {
        "memory://crawl/none.jsonl": "no such file; see the address, and that it may be read",
        "memory://crawl/x*": "no such file; see the address, and that it may be read",
        "memory://crawl/notes.doc": "nobody here reads files with such a name",
    }.items():
        with pytest.raises(UserError) as caught:
            input_files([], [url])
        assert str(caught.value) == f"{url}: {words}"


def test_problems_before_anything_starts() -> None:
    config = shorten.Config(urls=("nowhere://x", "plain", "dropbox://a/b"))
    found = dict(config.problems())
    assert "nowhere" in found["urls.0"]
    assert found["urls.1"] == "'plain' has no ://; files that are here belong to input"
    assert "install" in found["urls.2"].lower()
    assert not dict(shorten.Config(urls=("memory://a",)).problems())
    assert dict(shorten.Config().problems()) == {
        "input": "found nothing, must name at least one file or folder (or urls)"
    }


def test_files_by_address(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    files = input_files([], [f"file://{tmp_path}/*.txt"])
    items = [item for unit in cut_units(files, 100) for item in read_unit(unit, ReadRules())]
    assert told(items) == [f"file://{tmp_path}/a.txt"]
