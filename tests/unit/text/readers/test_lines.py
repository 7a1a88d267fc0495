"""Lines of JSON: packed or cut in any way, with lines that are none, and long ones."""

import gzip
import json
import random
from pathlib import Path

import pytest
import zstandard

from megatron_jobs.text.readers import ReadRules, cut_units, input_files, read_unit
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Quarantined
from tests.peak import grown_mib
from tests.warcs import read, told, write


def lines(count: int) -> list[bytes]:
    noise = random.Random(count)
    texts = ["x" * noise.randrange(60) for _ in range(count)]
    return [json.dumps({"id": str(n), "text": text}).encode() for n, text in enumerate(texts)]


@pytest.mark.parametrize("unit_bytes", [1, 7, 60, 1000, 10**9])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_cut_anywhere_each_line_is_read_once(tmp_path: Path, unit_bytes: int, end: bytes) -> None:
    path = write(tmp_path / "a.jsonl", b"\n".join(lines(50)) + end)
    assert told(read(path, unit_bytes=unit_bytes)) == [str(n) for n in range(50)]


def test_packed(tmp_path: Path) -> None:
    data = b"\r\n".join(lines(50))
    for name, content in {
        "a.jsonl.gz": gzip.compress(data[:700]) + gzip.compress(data[700:]),
        "a.jsonl.zst": zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
    }.items():
        assert told(read(write(tmp_path / name, content))) == [str(n) for n in range(50)]


def test_what_is_no_record_is_named_with_its_place(tmp_path: Path) -> None:
    bad = [b"{", b"", b'["text"]', b'{"text": 5}', b'{"id": 1}', b'{"text": "\xff"}']
    bad += [b'{"text": "\0"}', b'{"text": "\\ud800"}']
    first, last = b'\xef\xbb\xbf{"id": "a", "text": "x"}', b'{"id": "b", "text": ""}'
    data = b"\n".join([first, *bad, last])
    items = read(write(tmp_path / "a.jsonl", data))
    assert told(items) == [
        "a", "!not JSON", "!empty", "!no JSON object", "!'text' is no string", "!no key 'text'",
        "!not UTF-8", "!not JSON", "!not JSON", "b",
    ]  # fmt: skip
    second = items[1]
    assert isinstance(second, Quarantined)
    assert (second.place, second.size, second.head) == ("a.jsonl:2", 2, b"{")


def test_a_member_that_is_damaged(tmp_path: Path) -> None:
    """Lines of the members around it are read; a line that it cut is named."""
    members = [
        gzip.compress(b"\n".join(lines(50)[at : at + 10]) + b"\n") for at in range(0, 50, 10)
    ]
    broken = bytearray(members[2])
    broken[len(broken) // 2] ^= 0xFF
    data = b"".join([*members[:2], bytes(broken), *members[3:]])
    found = told(read(write(tmp_path / "a.jsonl.gz", data)))
    read_ids = [word for word in found if not word.startswith("!")]
    assert set(read_ids) >= {str(n) for n in [*range(20), *range(30, 50)]}
    assert found.count("!damaged") == 1
    assert len([word for word in found if word.startswith("!")]) <= 2
    cut = told(read(write(tmp_path / "b.jsonl.gz", data[: len(members[0]) + 20])))
    assert cut[:10] == [str(n) for n in range(10)]
    assert cut[-1] == "!cut short"


def test_a_giant_line_in_little_memory(tmp_path: Path) -> None:
    """A line of 1 GiB, packed to a megabyte, between two others."""
    block = gzip.compress(b"x" * (1 << 24))
    first, last = lines(2)
    small, path = (write(tmp_path / f"{n}.jsonl.gz", gzip.compress(first + b"\n")) for n in "ab")
    path.write_bytes(path.read_bytes() + block * 64 + gzip.compress(b"\n" + last))
    grown = grown_mib(small, path, limit=1_000_000)
    assert grown < 32, f"{grown} MiB more"
    path.write_bytes(small.read_bytes() + block * 4 + gzip.compress(b"\n" + last))
    items = read(path, rules=ReadRules(limit=1_000_000))
    assert told(items) == ["0", "!too long", "1"]
    giant = items[1]
    assert isinstance(giant, Quarantined)
    assert (giant.size, len(giant.head)) == ((1 << 26) + 1, 1 << 16)


def test_a_giant_line_is_read_by_one_piece_only(tmp_path: Path) -> None:
    """Each byte of it is read twice: to find the next line, and as the line."""
    first, second, last = lines(3)
    data = b"\n".join([first, second, b"x" * (40 << 20), last])
    path = write(tmp_path / "a.jsonl", data)
    units = cut_units(input_files([path]), 1 << 20)
    assert len(units) == 41
    before = bytes_read()
    items = [item for unit in units for item in read_unit(unit, ReadRules(limit=1000))]
    assert told(items) == ["0", "1", "!too long", "2"]
    assert bytes_read() - before < 2.2 * len(data)


def bytes_read() -> int:
    """By this process, so far."""
    facts = Path("/proc/self/io").read_text().split()
    return int(facts[facts.index("rchar:") + 1])


def test_zeros_of_a_crash(tmp_path: Path) -> None:
    first, last = lines(2)
    path = write(tmp_path / "a.jsonl", first + b"\n" + b"\0" * 100_000 + b"\n" + last)
    assert told(read(path)) == ["0", "!not JSON", "1"]


def test_names_of_records_without_id(tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    for folder in ("in", "in/sub"):
        write(tmp_path / folder / "a.jsonl", b'{"text": "x"}\n{"text": "y", "license": "CC0-1.0"}')
    items = read(tmp_path / "in")
    assert told(items) == [
        "in/a.jsonl:1", "in/a.jsonl:2", "in/sub/a.jsonl:1", "in/sub/a.jsonl:2",
    ]  # fmt: skip
    assert isinstance(items[1], Record)
    assert items[1].licence == "CC0-1.0"
