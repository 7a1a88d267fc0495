"""Lines read by C++ many at a time, against the reader that takes one after the other."""

import gzip
import random
from pathlib import Path

import pytest

from megatron_jobs._copies import mentions
from megatron_jobs.text.copies import quick_lines
from megatron_jobs.text.copies.quick_lines import Brief, read_briefly, reads_quickly
from megatron_jobs.text.readers import Item, Piece, ReadRules, Unit, input_files, read_unit
from megatron_jobs.text.record import Record

PLAIN = [
    b'{"id": "a", "text": "one two"}',
    b'{"text": "caf\xc3\xa9 \\u00e9 \\ud83d\\ude42 \\n", "id": 12}',
    b'{"id": "b", "text": "says \\"source\\" here", "url": "http://x", "n": [1, {"k": null}]}',
]
TOLD = [
    b'{"id": "c", "text": "three", "source": "web"}',
    b'{"id": "d", "source": "b\\u00fccher", "text": "four"}',
]
DATED = [
    b'{"id": "e", "text": "five", "source": "web", "timestamp": "2024-01-01"}',
    b'{"id": "f", "text": "six", "source": "mails", "timestamp": "2023"}',
]
NAMELESS = [b'{"text": "seven"}', b'{"url": "u", "text": "eight \\"id\\""}']
STRANGE = [
    b"",
    b"  ",
    b"\xef\xbb\xbf" + PLAIN[0],
    PLAIN[1] + b"\r",
    b'{"id": 0, "text": "no id"}',
    b'{"id": "0", "text": "an id"}',
    b'{"id": -0, "text": "no id"}',
    b'{"id": 1.5, "text": "a number"}',
    b'{"id": "", "text": "no id"}',
    b'{"id": true, "text": "a truth"}',
    b'{"text": "no id"}',
    b'{"id": "g", "text": ""}',
    b'{"id": "g", "text": " \\u00a0 "}',
    b'{"id": "g", "text": 5}',
    b'{"id": "g"}',
    b'{"id": "g", "text": "twice", "text": "the last"}',
    b'{"id": "g", "text": "x", "sour\\u0063e": "hidden"}',
    b'{"id": "g", "text": "x", "source": ""}',
    b'{"id": "g", "text": "x", "source": 7}',
    b'{"id": "g", "text": "x", "metadata": {"source": "inside"}}',
    b'{"id": "g", "text": "x", "date": "2020", "timestamp": "2021"}',
    b'{"id": "g", "text": "x", "timestamp": "2021", "date": "2020"}',
    b'{"id": "g", "text": "x", "date": 2020}',
    b'{"id": "g", "text": "x", "added": null}',
    b'{"id": "g", "text": "\xff"}',
    b'{"id": "g", "text": "\\ud800"}',
    b'{"id": "g", "text": "x", "n": NaN}',
    b'{"id": "g", "text": "long ' + b"x" * 500 + b'"}',
    b'["no object"]',
    b"no json",
]
RULES = ReadRules(limit=300, source="default")


def facts(item: Item | Brief, rules: ReadRules) -> object:
    """What fingerprints take of a record; all of what is none."""
    if isinstance(item, Brief):
        return item.id, item.text, item.source or rules.source, item.date
    if isinstance(item, Record):
        return item.id, item.text.encode(), item.source or rules.source, item.date
    return item


def compare(piece: Piece, rules: ReadRules) -> int:
    """How many were read briefly; all must be what the reader gives."""
    found = list(read_briefly(piece, rules))
    wanted = list(read_unit(Unit((piece,)), rules))
    assert [facts(i, rules) for i in found] == [facts(i, rules) for i in wanted]
    return sum(isinstance(item, Brief) for item in found)


@pytest.mark.parametrize("block", [1, 150, 1 << 18])
@pytest.mark.parametrize("lines", [PLAIN, TOLD, DATED, NAMELESS])
def test_lines_that_are_sure_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[bytes], block: int
) -> None:
    monkeypatch.setattr(quick_lines, "BLOCK", block)
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines * 7) + b"\n")
    assert compare(input_files([tmp_path])[0], RULES) == 7 * len(lines)
    (tmp_path / "a.jsonl").unlink()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines)))
    assert compare(input_files([tmp_path])[0], RULES) == len(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines * 99))[:-40])
    compare(input_files([tmp_path])[0], RULES)


@pytest.mark.parametrize("block", [1, 100, 1 << 18])
@pytest.mark.parametrize("line", STRANGE)
def test_strange_lines_are_what_the_reader_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes, block: int
) -> None:
    monkeypatch.setattr(quick_lines, "BLOCK", block)
    for place in (0, 2, 3):
        lines = [*PLAIN[:place], line, *PLAIN[place:]]
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
        compare(input_files([tmp_path])[0], RULES)


def test_mixtures_and_parts_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random.Random(0)
    for _ in range(150):
        monkeypatch.setattr(quick_lines, "BLOCK", drawn.choice([1, 80, 300, 2000]))
        kinds = [PLAIN * 5, TOLD * 5, DATED * 5, NAMELESS * 5, STRANGE]
        chosen = [line for kind in kinds if drawn.random() < 0.6 for line in kind]
        lines = drawn.choices(chosen or PLAIN, k=30)
        (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
        whole = input_files([tmp_path])[0]
        cut = drawn.randrange(whole.size)
        for start, end in ((0, whole.end), (0, cut), (cut, whole.end)):
            piece = Piece(whole.path, start, end, whole.name)
            compare(piece, ReadRules(key=drawn.choice(["text", "text", "source", "id"]), limit=300))


def test_what_can_be_read_so() -> None:
    names = {"a.jsonl": True, "a.ndjson.gz": True, "a.txt": False, "a.parquet": False}
    for name, wanted in names.items():
        assert reads_quickly(Piece(Path(name), 0, 1, name)) == wanted


def test_names_between_quotes_are_seen() -> None:
    assert mentions(b'{"source": 1}', ["date", "source"])
    assert not mentions(b'{"source": 1}', ["date", "sourc", "ource"])
    assert not mentions(b'"source', ["source"])
    assert not mentions(b"", ["source"])
    assert mentions(b'""source"', ["source"])
