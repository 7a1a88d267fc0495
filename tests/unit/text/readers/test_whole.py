"""Files that are one document each: texts and pages; see also test_mail."""

import gzip
from pathlib import Path

from megatron_jobs.text.readers import ReadRules
from megatron_jobs.text.record import Record
from tests.warcs import read, told, write


def one(path: Path, pages: bool = False) -> Record:
    items = read(path, rules=ReadRules(pages=pages))
    assert len(items) == 1
    assert isinstance(items[0], Record), items
    return items[0]


def test_texts(tmp_path: Path) -> None:
    assert one(write(tmp_path / "a.txt", "\ufeffGröße\n".encode())).text == "Größe\n"
    assert one(write(tmp_path / "a.txt.gz", gzip.compress(b"x"))).id == "a.txt.gz"
    assert told(read(write(tmp_path / "a.txt", b"\xff"), rules=ReadRules())) == ["!not UTF-8"]
    assert one(tmp_path / "a.txt", pages=True).payload == b"\xff"
    assert told(read(write(tmp_path / "a.txt", b""))) == []
    long = ReadRules(limit=10)
    assert told(read(write(tmp_path / "a.txt", b"x" * 11), rules=long)) == ["!too long"]
    assert told(read(write(tmp_path / "a.txt.gz", gzip.compress(b"x")[:-3]))) == ["!cut short"]


def test_pages(tmp_path: Path) -> None:
    found = one(write(tmp_path / "a.HTML", b"<p>\xff"), pages=True)
    assert (found.id, found.payload) == ("a.HTML", b"<p>\xff")
    assert found.metadata == {"content_type": "text/html"}
