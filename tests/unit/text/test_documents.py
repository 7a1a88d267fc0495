"""Cutting files, reading lines, and what is no document."""

import base64
import gzip
import io
import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import zstandard

from megatron_jobs.errors import UserError
from megatron_jobs.text.documents import Document, Rejected, read_documents
from megatron_jobs.text.lines import Damage, Line, read_lines
from megatron_jobs.text.members import CHUNK
from megatron_jobs.text.rejects import HEADS, RAW, RejectWriter, write_rejects
from megatron_jobs.text.sources import Piece, TextFile, cut, default_parts, text_files


def a_file(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def lines_of(pieces: list[Piece], limit: int = 1000) -> list[tuple[str, bytes]]:
    """(file, whole line) of each line, however long."""
    found = []
    for piece in pieces:
        for line in read_lines(piece, limit):
            assert isinstance(line, Line)
            whole = line.head + b"".join(line.rest)
            found.append((piece.file.path.name, whole))
    return found


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("case", range(5))
def test_parts_read_each_line_once_in_order(tmp_path: Path, parts: int, case: int) -> None:
    """Random files of random line ends, some empty, some packed, against splitting them whole."""
    random = np.random.default_rng(case)
    wanted = []
    for name in ("a.json.gz", "b.jsonl", "c.jsonl", "d.txt", "e.jsonl", "f.jsonl.gz"):
        sizes = random.integers(0, 30, random.integers(0, 12))
        lines = [bytes(random.integers(97, 122, size, np.uint8)) for size in sizes]
        ends = [bytes(random.choice([b"\n", b"\r\n"])) for _ in lines]
        content = b"".join(a + b for a, b in zip(lines, ends, strict=True))
        if lines and lines[-1] and random.integers(2):
            content = content.removesuffix(ends[-1])
        a_file(tmp_path / name, content)
        wanted += [(name, content)] if name == "d.txt" else [(name, line) for line in lines]
    plan = cut(text_files([tmp_path]), parts)
    assert len(plan) == parts
    assert [found for pieces in plan for found in lines_of(pieces, limit=20)] == wanted


def test_a_long_line_may_be_left_unread(tmp_path: Path) -> None:
    path = a_file(tmp_path / "x.jsonl", b"a" * 5_000_000 + b"\nb\n")
    ((piece,),) = cut(text_files([path]), 1)
    lines = [(line.number, line.too_long, len(line.head)) for line in read_lines(piece, 10)]
    assert lines == [(1, True, CHUNK), (2, False, 1)]


def test_parts_are_of_about_one_size(tmp_path: Path) -> None:
    a_file(tmp_path / "a.jsonl", bytes(1000))
    a_file(tmp_path / "b.jsonl", bytes(500))
    plan = cut(text_files([tmp_path]), 4)
    assert [sum(piece.size for piece in part) for part in plan] == [375] * 4
    assert default_parts(text_files([tmp_path])) == 8


def test_pieces_are_those_of_a_look_at_every_part_of_every_file(tmp_path: Path) -> None:
    drawn = random.Random(0)
    for case in range(30):
        sizes = [drawn.choice([0, 1, 7, 40]) for _ in range(drawn.randint(1, 9))]
        files = [TextFile(Path(f"{i}.jsonl"), size, str(i)) for i, size in enumerate(sizes)]
        parts = drawn.randint(1, 12)
        bounds = [sum(sizes) * part // parts for part in range(parts + 1)]
        wanted = [
            [
                (str(i), start - first, end - first)
                for i, size in enumerate(sizes)
                for first in [sum(sizes[:i])]
                for start, end in [(max(low, first), min(high, first + size))]
                if start < end
            ]
            for low, high in itertools.pairwise(bounds)
        ]
        found = [[(p.file.name, p.start, p.end) for p in part] for part in cut(files, parts)]
        assert found == wanted, case


def test_a_folder_gives_its_readable_files_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.txt.gz", "a/c.json", "readme.md"):
        a_file(tmp_path / name, b"x\n")
    names = [str(f.path.relative_to(tmp_path)) for f in text_files([tmp_path])]
    assert names == ["a/c.json", "a/z.txt.gz", "b.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"x", r"x\.csv: can read files that end in \.jsonl, \.jsonl\.gz, \.json"),
        ("x.jsonl.bz2", b"x", r"x\.jsonl\.bz2: can read files that end in"),
        ("x.jsonl", b"", r"input: found .*x\.jsonl, without a single byte; give it some text"),
        ("folder/x.csv", b"x", r"folder: no file in it ends in \.jsonl"),
        ("", b"", "none: no such file or folder"),
    ],
)
def test_names_what_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = a_file(tmp_path / name, content) if name else tmp_path / "none"
    with pytest.raises(UserError, match=message):
        text_files([path.parent if path.parent.name == "folder" else path])


def pack(content: bytes, kind: str) -> bytes:
    """Two members or frames, as those who append write them."""
    one = gzip.compress if kind == ".gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    return one(content[: len(content) // 2]) + one(content[len(content) // 2 :])


@pytest.mark.parametrize("kind", [".gz", ".zst"])
@pytest.mark.parametrize("padding", [b"", bytes(600)])
def test_packed_files_of_several_members(tmp_path: Path, kind: str, padding: bytes) -> None:
    random = np.random.default_rng(1)
    lines = [bytes(random.integers(97, 122, random.integers(1, 200), "u1")) for _ in range(30_000)]
    content = b"\n".join(lines)
    path = tmp_path / f"x.jsonl{kind}"
    path.write_bytes(pack(content, kind) + (padding if kind == ".gz" else b""))
    pieces = [piece for part in cut(text_files([path]), 3) for piece in part]
    assert [line for _, line in lines_of(pieces)] == lines


@pytest.mark.parametrize("kind", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["short", "shorter", "in the middle", "at once", "after it"])
def test_what_comes_before_a_damage_is_kept(tmp_path: Path, kind: str, damage: str) -> None:
    random = np.random.default_rng(2)
    lines = [bytes(random.integers(97, 122, 99, "u1")) for _ in range(40_000)]
    packed = pack(b"\n".join(lines) + b"\n", kind)
    half = len(packed) // 2
    path = tmp_path / f"x.jsonl{kind}"
    path.write_bytes(
        {
            "short": packed[:-3],
            "shorter": packed[: half // 2],
            "in the middle": packed[:half] + b"\xff" * 99 + packed[half + 99 :],
            "at once": b"not packed at all",
            "after it": packed + b"and more",
        }[damage]
    )
    (piece,) = (piece for part in cut(text_files([path]), 1) for piece in part)
    items = list(read_lines(piece, 1000))
    assert [item.number for item in items] == list(range(1, len(items) + 1))
    (place,) = (place for place, item in enumerate(items) if isinstance(item, Damage))
    words = "damaged {}" if damage not in ("short", "shorter") else "{} cut short"
    assert items[place].reason == words.format("gzip" if kind == ".gz" else "zstd")
    found = [line.head for line in items[:place]]
    assert found == lines[: len(found)]
    least = {"short": 39_000, "shorter": 8_000, "in the middle": 10_000, "after it": 40_000}
    assert len(found) >= least.get(damage, 0)
    rejected = [r for r in read_documents(piece, key="text", limit=1000) if isinstance(r, Rejected)]
    assert [item.number for item in rejected if item.damaged] == [place + 1]


def test_a_line_of_many_pieces_is_read_once(tmp_path: Path) -> None:
    """Not to its end by each piece that it is in."""
    path = a_file(tmp_path / "x.jsonl", b"short\n" + b"long " * (1 << 22) + b"\nlast\n")
    pieces = [piece for part in cut(text_files([path]), 20) for piece in part]
    before = bytes_read()
    found = lines_of(pieces)
    assert [line[:4] for _, line in found] == [b"shor", b"long", b"last"]
    assert bytes_read() - before < 4 * path.stat().st_size


def bytes_read() -> int:
    """By this process (proc(5), io)."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("kind", [".gz", ".zst", ".zstd"])
def test_what_comes_after_a_damage_is_read_too(tmp_path: Path, kind: str) -> None:
    """Of members that each hold whole lines, one is lost."""
    random = np.random.default_rng(3)
    one = gzip.compress if kind == ".gz" else zstandard.ZstdCompressor(write_checksum=True).compress
    lines = [bytes(random.integers(97, 122, 99, "u1")) for _ in range(4_000)]
    members = [
        bytearray(one(b"\n".join(lines[i : i + 1000]) + b"\n")) for i in (0, 1000, 2000, 3000)
    ]
    members[1][20_000:20_050] = bytes(50)
    path = tmp_path / f"x.jsonl{kind}"
    path.write_bytes(b"".join(members))
    (piece,) = (piece for part in cut(text_files([path]), 1) for piece in part)
    items = list(read_lines(piece, 1000))
    (place,) = (place for place, item in enumerate(items) if isinstance(item, Damage))
    assert [item.number for item in items] == list(range(1, len(items) + 1))
    assert [item.head for item in items[:1000]] == lines[:1000]
    assert 1000 <= place < 2000
    assert [item.head for item in items[place + 1 :]] == lines[2000:]


LINES = {
    b'{"text": "good"}': "good",
    b'{"text": "caf\\u00e9", "x": [1]}\r': "caf\u00e9",
    b'{"text": " \\n a"}': " \n a",
    b"no json": "not JSON",
    b'{"text": "cut short': "not JSON",
    b'{"text": 1' + b"0" * 5000 + b"}": "not JSON",
    b"[" * 100_000: "JSON nested too deeply",
    b"": "empty",
    b"  ": "empty",
    b'["text"]': "no JSON object",
    b'{"words": "x"}': "no key 'text'",
    b'{"text": null}': "'text' is no string",
    b'{"text": ""}': "empty",
    b'{"text": " \\n\\t"}': "empty",
    b'{"text": "\xff\xfe"}': "not UTF-8",
    b'{"text": "\\ud800"}': "half a surrogate pair",
    b'{"text": "' + b"x" * 200_000 + b'"}': "over 0.15 MB",
}


def test_every_kind_of_line(tmp_path: Path) -> None:
    path = a_file(tmp_path / "x.jsonl", b"\xef\xbb\xbf" + b"\n".join(LINES))
    ((piece,),) = cut(text_files([path]), 1)
    for number, (item, (line, wanted)) in enumerate(
        zip(read_documents(piece, key="text", limit=150_000), LINES.items(), strict=True), 1
    ):
        assert item.number == number
        if isinstance(item, Document):
            assert item.text == wanted
        else:
            assert item.reason == wanted
            assert b"".join(item.raw) == line.removesuffix(b"\r")


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    path = a_file(tmp_path / "x.txt.gz", "a\n\nbé\n".encode())
    ((piece,),) = cut(text_files([path]), 1)
    content = "a\n\nbé\n"
    assert list(read_documents(piece, key="text", limit=9)) == [
        Document(1, content, content.encode())
    ]
    items = read_documents(piece, key="text", limit=5)
    long = next(items)
    assert isinstance(long, Rejected)
    assert b"".join(long.raw) == content.encode()


@pytest.mark.parametrize(
    "line", [b"", b'a "\\\n'[:-1], "é\u2028\x00".encode(), b"\xff\x00", b"\xc3"]
)
@pytest.mark.parametrize("times", [1, 400_000])
def test_what_is_put_aside_comes_back_to_the_byte(tmp_path: Path, line: bytes, times: int) -> None:
    """Chunks cut letters in two; the record is one line of JSON all the same."""
    whole = b"x" + line * times
    chunks = [whole[i : i + 100_000] for i in range(0, len(whole), 100_000)]
    with (tmp_path / HEADS).open("w") as heads, (tmp_path / RAW).open("wb") as raw:
        RejectWriter(heads, raw).add(0, Rejected(3, "bad", iter(chunks)))
    out = io.StringIO()
    words = list(write_rejects(tmp_path, [(Path("/f.jsonl"), 10)], out))
    assert words == ["/f.jsonl:13: bad"]
    (record,) = map(json.loads, out.getvalue().removesuffix("\n").split("\n"))
    text = record.pop("text", None)
    raw_again = text.encode() if text is not None else base64.b64decode(record.pop("base64"))
    assert raw_again == whole
    assert (text is not None) == (line not in (b"\xff\x00", b"\xc3"))
    assert record == {"file": "/f.jsonl", "line": 13, "reason": "bad", "bytes": len(whole)}
