"""An archive is read in pieces as it is read whole, wherever it is cut and whatever is broken."""

import gzip
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.text.readers import ReadRules, cut_units, input_files, read_unit
from tests.warcs import packed, page, read, record, told, write

RULES = ReadRules(pages=True)
NOISE = random.Random(7)


def pages(count: int, words: int = 30) -> list[bytes]:
    texts = [" ".join(str(NOISE.random()) for _ in range(words)) for _ in range(count)]
    return [page(n, text=text) for n, text in enumerate(texts)]


def in_pieces(path: Path, size: int) -> tuple[int, list[dict[str, Any]]]:
    """How many pieces give something, and all that they give."""
    units = cut_units(input_files([path]), size)
    found = [[asdict(item) for item in read_unit(unit, RULES)] for unit in units]
    return sum(map(bool, found)), [item for items in found for item in items]


def check(path: Path, sizes: list[int]) -> None:
    whole = [asdict(item) for item in read(path)]
    for size in sizes:
        assert in_pieces(path, size)[1] == whole, size


def test_each_record_is_in_one_piece(tmp_path: Path) -> None:
    path = write(tmp_path / "a.warc.gz", packed(*pages(40)))
    check(path, [1, 100, 1000, 3000, 1 << 30])
    share = path.stat().st_size // 8
    assert in_pieces(path, share)[0] in (8, 9), "tasks share an archive"


def test_cut_at_each_byte_around_a_record(tmp_path: Path) -> None:
    members = [packed(one) for one in pages(4, words=3)]
    path = write(tmp_path / "a.warc.gz", b"".join(members))
    check(path, list(range(len(members[0]) - 3, len(members[0]) + len(members[1]) + 3)))


@pytest.mark.parametrize("seed", range(8))
def test_broken_archives(tmp_path: Path, seed: int) -> None:
    """Bytes changed, noise, zeros and parts of members between the others, a file cut short."""
    draw = random.Random(seed)
    members = [packed(one) for one in pages(25)]
    for _ in range(4):
        place = draw.randrange(len(members))
        broken = bytearray(members[place])
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        members[place] = bytes(broken)
    parts = [draw.randbytes(900), b"\0" * 700, members[3][:200], b"\x1f\x8b\x08" * 9]
    for part in parts:
        members.insert(draw.randrange(len(members)), part)
    data = b"".join(members)
    path = write(tmp_path / "a.warc.gz", data[: len(data) - draw.choice([0, 1, 20, 300])])
    assert any(word.startswith("!") for word in told(read(path)))
    check(path, [draw.randrange(200, 4000) for _ in range(12)])


def test_lengths_that_lie(tmp_path: Path) -> None:
    lies = [page(n, length=length) for n, length in ((50, 10), (51, 10_000), (52, 0))]
    path = write(tmp_path / "a.warc.gz", packed(*pages(5), *lies, *pages(5)))
    check(path, [200, 500, 900, 2000])


def test_records_that_are_not_packed_one_by_one(tmp_path: Path) -> None:
    """All in one member, or in blocks of any size: the pieces behind the first are empty."""
    plain = b"".join([*pages(20), record(b"x" * 3000, kind="request")])
    blocks = [plain[at : at + 997] for at in range(0, len(plain), 997)]
    for name, data in (("one", gzip.compress(plain)), ("blocks", packed(*blocks))):
        path = write(tmp_path / f"{name}.warc.gz", data)
        check(path, [300, 1000, 5000])
    assert in_pieces(tmp_path / "one.warc.gz", 500)[0] == 1


def test_what_cannot_be_cut(tmp_path: Path) -> None:
    """A page may hold what looks like a record: only lengths tell, counted from the start."""
    for name in ("a.warc", "a.warc.zst"):
        path = write(tmp_path / name, b"".join(pages(9)))
        assert len(cut_units(input_files([path]), 100)) == 1
