"""Texts without what earlier ones have: whole letters, whole documents, several units."""

import json
from pathlib import Path

import pytest

from megatron_jobs.config.settings import all_problems
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import repeats
from megatron_jobs.text.record import Record
from megatron_jobs.text.repeats import Repeats
from megatron_jobs.text.shards import Verdict, read_shard, shards_below

NOTE = "Dieser Absatz über Größe und Maß steht unter jeder Seite dieses Handbuchs. "


def write(tmp_path: Path, texts: list[str]) -> Path:
    path = tmp_path / "in.jsonl"
    records = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def texts_of(folder: Path, kind: str = "documents") -> dict[str, str]:
    lines = [json.loads(x) for shard in shards_below(folder / kind) for x in read_shard(shard)]
    return {line["id"]: line["text"] for line in lines}


def test_a_note_below_every_page(tmp_path: Path) -> None:
    pages = [f"Page {i}: {'abcdefgh'[i] * 9} {i * 12345}. {NOTE}" for i in range(8)]
    config = repeats.Config(input=[write(tmp_path, pages)], min_bytes=40, min_left=5)
    numbers = repeats.run(config, Rank(), tmp_path / "out")
    assert (numbers["documents"], numbers["cut_documents"]) == (8, 7)
    found = texts_of(tmp_path / "out")
    assert found["0"] == pages[0]
    for i in range(1, 8):
        cut = pages[i].removesuffix(". " + NOTE)
        assert found[str(i)] in (cut, cut[:-1], cut[:-2])  # numbers that end alike repeat too
    left = sum(len(text.encode()) for text in found.values())
    assert numbers["cut_bytes"] == sum(len(page.encode()) for page in pages) - left


def test_copies_of_whole_documents_go(tmp_path: Path) -> None:
    texts = [NOTE, "x" + NOTE, NOTE, "something else " * 3]
    config = repeats.Config(input=[write(tmp_path, texts)], min_bytes=30, min_left=10)
    numbers = repeats.run(config, Rank(), tmp_path / "out")
    assert (numbers["documents"], numbers["rejected"]) == (2, 2)
    assert list(texts_of(tmp_path / "out", "rejected")) == ["1", "2"]


def test_units_are_compared_within_themselves(tmp_path: Path) -> None:
    texts = [f"{i} {NOTE}" for i in range(4)]
    path = write(tmp_path, texts)
    half = path.stat().st_size / 2 / 1e6 + 1e-5
    config = repeats.Config(input=[path], min_bytes=40, min_left=1, unit_mb=half)
    assert repeats.run(config, Rank(), tmp_path / "out")["cut_documents"] == 2


def test_cuts_take_whole_letters() -> None:
    """The bytes that repeat begin and end inside letters: é is C3 A9, è C3 A8, © C2 A9."""
    texts = ["xé" + "ab" * 5 + "éy", "w©" + "ab" * 5 + "è_"]
    treatment = Repeats(12, 1)
    records = [Record(str(i), text) for i, text in enumerate(texts)]
    treatment.prepare(records)
    kept = [treatment.treat(record) for record in records]
    assert [record.text for record in kept if isinstance(record, Record)] == [texts[0], "w©è_"]
    assert treatment.numbers() == {"cut_documents": 1, "cut_bytes": 10}
    treatment.prepare([Record("a", "same text"), Record("b", "same text")])
    assert isinstance(treatment.treat(Record("a", "same text")), Record)


def test_nothing_left() -> None:
    treatment = Repeats(4, 3)
    records = [Record("a", "same text"), Record("b", "  same text\n")]
    treatment.prepare(records)
    assert treatment.treat(records[0]) is records[0]
    assert treatment.treat(records[1]) == Verdict("repeats.too_short", 0, 3)


def test_more_than_can_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_jobs.text.repeats.MOST_BYTES", 10)
    with pytest.raises(UserError, match=r"unit_mb: a unit has 0.0 GB of text, at most 2.1 can"):
        Repeats(4, 3).prepare([Record("a", "eleven byte")])


def test_bad_settings(tmp_path: Path) -> None:
    config = repeats.Config(input=[write(tmp_path, ["a"])], min_bytes=0, min_left=-1)
    assert list(all_problems(config)) == [
        ("min_bytes", "0 must be at least 1"),
        ("min_left", "-1 is negative"),
    ]
