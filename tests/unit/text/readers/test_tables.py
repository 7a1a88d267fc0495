"""Parquet and Arrow: any columns, cut anywhere, damaged."""

import datetime
import random
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from megatron_jobs.text.readers import ReadRules
from megatron_jobs.text.record import Record
from tests.warcs import read, told


def table(count: int = 50) -> pa.Table:
    return pa.table({"id": [str(n) for n in range(count)], "text": ["x" * n for n in range(count)]})


@pytest.mark.parametrize("unit_bytes", [100, 777, 10**9])
def test_each_row_group_is_read_once(tmp_path: Path, unit_bytes: int) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(table(), path, row_group_size=7)
    assert told(read(path, unit_bytes=unit_bytes)) == [str(n) for n in range(50)]


def test_columns_of_all_kinds(tmp_path: Path) -> None:
    when = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    row = {
        "content": "t",
        "lang": "de",
        "n": 2,
        "at": when,
        "b": b"\0",
        "l": [{"a": None}],
        "no": None,
    }
    parquet.write_table(pa.Table.from_pylist([row, {"n": 3}]), tmp_path / "a.parquet")
    items = read(tmp_path / "a.parquet", rules=ReadRules(key="content", source="s"))
    assert told(items) == ["a.parquet:1", "!no key 'content'"]
    first = items[0]
    assert isinstance(first, Record)
    assert (first.text, first.language, first.source) == ("t", "de", "s")
    assert first.metadata == {
        "n": 2,
        "at": "2024-05-06T07:08:09+00:00",
        "b": "AA==",
        "l": [{"a": None}],
    }


def test_text_that_is_not_utf_8(tmp_path: Path) -> None:
    """Costs its row, not the batch around it."""
    texts = pa.array([b"a", b"\xff", b"c"], pa.binary()).view(pa.string())
    batch = pa.RecordBatch.from_arrays([texts], ["text"])
    with (tmp_path / "a.arrow").open("wb") as file, pa.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(batch)
    assert told(read(tmp_path / "a.arrow")) == ["a.arrow:1", "!not UTF-8", "a.arrow:3"]


def test_arrow_streams_and_files(tmp_path: Path) -> None:
    for maker, name in ((pa.ipc.new_stream, "a.arrow"), (pa.ipc.new_file, "b.arrow")):
        with (tmp_path / name).open("wb") as file, maker(file, table().schema) as writer:
            writer.write_table(table(), max_chunksize=9)
        assert told(read(tmp_path / name)) == [str(n) for n in range(50)]


@pytest.mark.parametrize("end", ["parquet", "arrow"])
def test_tables_that_are_damaged(tmp_path: Path, end: str) -> None:
    """Whatever byte is changed or missing: rows that are read are right, and nothing raises."""
    path = tmp_path / f"a.{end}"
    if end == "parquet":
        parquet.write_table(table(), path, row_group_size=7)
    else:
        with path.open("wb") as file, pa.ipc.new_stream(file, table().schema) as writer:
            writer.write_table(table(), max_chunksize=9)
    data, noise = path.read_bytes(), random.Random(1)
    for _ in range(60):
        broken = bytearray(data[: noise.randrange(8, len(data))])
        path.write_bytes(broken)
        items = read(path)
        assert len(items) <= 51
        assert [told([item])[0] for item in items if isinstance(item, Record)] == [
            str(n) for n in range(len([item for item in items if isinstance(item, Record)]))
        ]
    for _ in range(100):
        changed = bytearray(data)
        changed[noise.randrange(len(data))] = noise.randrange(256)
        path.write_bytes(changed)
        assert len(read(path)) <= 51
    path.write_bytes(b"nothing of the kind" * 10)
    assert told(read(path)) == ["!damaged"]


def test_long_rows(tmp_path: Path) -> None:
    parquet.write_table(table(), tmp_path / "a.parquet")
    found = told(read(tmp_path / "a.parquet", rules=ReadRules(limit=40)))
    assert found == [*(str(n) for n in range(41)), *["!too long"] * 9]
