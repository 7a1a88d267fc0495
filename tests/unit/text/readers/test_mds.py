"""MDS: cut short, damaged, with headers that lie and values that cannot be written again."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_jobs.runtime.files import write_json
from megatron_jobs.text.mds import ShardWriter
from megatron_jobs.text.readers import ReadRules
from megatron_jobs.text.record import Record, to_line
from tests.warcs import read, told, write


def shard(folder: Path, packed: bool) -> Path:
    writer = ShardWriter(folder, {"id": "str", "text": "str"}, lambda i: f"{i}", packed)
    for n in range(50):
        writer.add({"id": str(n), "text": "x" * n})
    writer.finish()
    write_json(folder / "index.json", {"version": 2, "shards": writer.shards})
    return folder / ("0.mds.zstd" if packed else "0.mds")


@pytest.mark.parametrize("packed", [True, False])
def test_mds_that_is_cut_short(tmp_path: Path, packed: bool) -> None:
    path = shard(tmp_path, packed)
    assert told(read(tmp_path)) == [str(n) for n in range(50)]
    data, noise = path.read_bytes(), random.Random(1)
    for at in noise.sample(range(1, len(data)), 40):
        path.write_bytes(data[:at])
        found = told(read(path))
        assert found[-1] in ("!cut short", "!damaged")
        assert found[:-1] == [str(n) for n in range(len(found) - 1)]
    path.write_bytes(b"")
    (tmp_path / "1.mds").write_bytes(b"nothing of the kind" * 10)
    assert told(read(tmp_path / "1.mds")) == ["!no MDS"]


def test_mds_with_long_samples_and_other_columns(tmp_path: Path) -> None:
    path = shard(tmp_path, packed=False)
    found = told(read(path, rules=ReadRules(limit=40)))
    assert found.count("!too long") == 50 - 31
    path.write_bytes(path.read_bytes().replace(b'"str", "str"', b'"pkl", "str"'))
    assert told(read(path)) == ["!columns of pkl"] * 50


def made(columns: Any, sample: bytes, count: int = 1) -> bytes:
    """A shard by hand."""
    head = columns if isinstance(columns, bytes) else json.dumps(columns).encode()
    starts = 8 + 4 * count + len(head) + len(sample) * np.arange(count + 1)
    return struct.pack("<I", count) + starts.astype("<u4").tobytes() + head + sample * count


def columns(**more: Any) -> dict[str, Any]:
    said = {"names": ["text"], "encodings": ["str"], "sizes": [None]} | more
    return {f"column_{name}": value for name, value in said.items()}


SAMPLE = struct.pack("<I", 2) + b"ab"


@pytest.mark.parametrize(
    "said",
    [columns(sizes=[-5]), columns(sizes=["x"]), columns(sizes=None), columns(names=3),
     columns(names=[["a"]]), columns(encodings=[5]), columns(names=["a", "b"]), [1, 2], {}, None,
     columns(sizes=[True]), columns(names=["\ud800"]), columns(encodings=["\ud800"])],
)  # fmt: skip
def test_headers_that_lie(tmp_path: Path, said: Any) -> None:
    assert told(read(write(tmp_path / "a.mds", made(columns(), SAMPLE)))) == ["a.mds:1"]
    assert told(read(write(tmp_path / "a.mds", made(said, SAMPLE)))) == ["!no columns"]


def test_headers_that_are_deep_or_huge(tmp_path: Path) -> None:
    for data, reason in (
        (made(b"[" * 90_000 + b"]" * 90_000, SAMPLE), "no columns"),
        (struct.pack("<II", 2**32 - 1, 2**32 - 1) * 9, "no MDS"),
        (struct.pack("<II", 2**25, 2**32 - 1) * 9, "cut short"),
        (struct.pack("<III", 1, 2**31, 2**31) * 9, "no columns"),
    ):
        assert told(read(write(tmp_path / "a.mds", data))) == [f"!{reason}"]


@pytest.mark.parametrize(
    ("encoding", "value", "reason"),
    [("json", b"[" * 2000 + b"]" * 2000, "no plain JSON"), ("json", b"9" * 30, "no plain JSON"),
     ("json", b'"\\ud800"', "no plain JSON"), ("json", b"[" * 300 + b"]" * 300, "no plain JSON"),
     ("json", b"9" * 5000, "damaged"), ("str_int", b"9" * 30, "no plain JSON"),
     ("ndarray", b"", "damaged"), ("ndarray:uint8", b"\x0b" + b"\xff" * 16, "damaged"),
     ("json", b"NaN", ""), ("ndarray:uint8", b"\x0a\0\0\0\x40\0\0\0\0", "")],
)  # fmt: skip
def test_values_that_cannot_be_written(
    tmp_path: Path, encoding: str, value: bytes, reason: str
) -> None:
    said = columns(names=["text", "m"], encodings=["str", encoding], sizes=[None, None])
    sample = struct.pack("<II", 2, len(value)) + b"ab" + value
    (item,) = read(write(tmp_path / "a.mds", made(said, sample)))
    assert told([item]) == [f"!{reason}" if reason else "a.mds:1"]
    if isinstance(item, Record):
        to_line(item)


def test_values_that_are_longer_than_their_sample(tmp_path: Path) -> None:
    sample = struct.pack("<I", 9) + b"ab"
    assert told(read(write(tmp_path / "a.mds", made(columns(), sample, 2)))) == ["!cut short"] * 2


def test_what_is_behind_the_last_row(tmp_path: Path) -> None:
    path = shard(tmp_path, packed=True)
    write(path, path.read_bytes() + b"no frame of zstd")
    assert told(read(path)) == [*(str(n) for n in range(50)), "!damaged"]
