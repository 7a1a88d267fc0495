"""Parquet and Arrow: any columns, cut anywhere, damaged."""

import datetime
import random
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from megatron_jobs.text.readers import ReadRules
from megatron_jobs.text.record import Record
from tests.peak import grown_mib
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


@pytest.mark.parametrize(
    ("values", "reason"),
    [(pa.array([1, 2**55, 3], pa.timestamp("ms")), "value out of range"),
     (pa.array([1, 2**30, 3], pa.date32()), "value out of range"),
     (pa.array([1, 2**62, 3], pa.duration("s")), "value out of range"),
     (pa.array([1, 2, 3], pa.timestamp("s", tz="Nowhere/City")), "unknown time zone")],
)  # fmt: skip
@pytest.mark.parametrize("end", ["parquet", "arrow"])
def test_values_that_python_cannot_hold(
    tmp_path: Path, values: pa.Array, reason: str, end: str
) -> None:
    rows, path = pa.table({"text": ["a", "b", "c"], "when": values}), tmp_path / f"a.{end}"
    if end == "parquet":
        if pa.types.is_duration(values.type):
            pytest.skip("Parquet has none")
        parquet.write_table(rows, path)
    else:
        with path.open("wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
            writer.write_table(rows)
    wanted = [f"a.{end}:1", f"!{reason}", f"a.{end}:3"]
    found = told(read(path))
    assert found == (wanted if "range" in reason else [f"!{reason}"] * 3)


@pytest.mark.parametrize("end", ["parquet", "arrow"])
def test_large_groups_of_large_rows(tmp_path: Path, end: str) -> None:
    """Neither the group nor 1,024 rows of it are in memory at once: 160 MB in little of it."""
    letters = pa.array(["x" * 10_000] * 16_000 if end == "parquet" else ["x" * 100_000] * 1600)
    small, large = (tmp_path / f"{name}.{end}" for name in ("small", "large"))
    for count, path in ((5, small), (len(letters), large)):
        rows = pa.table({"text": letters[:count]})
        if end == "parquet":
            parquet.write_table(rows, path, compression="none", use_dictionary=False)
            continue
        with path.open("wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
            writer.write_table(rows)
    assert len(read(large)) == len(letters)
    grown = grown_mib(small, large)
    assert grown < (160 if end == "parquet" else 230), f"{grown} MiB"
