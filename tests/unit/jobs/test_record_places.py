"""Documents in all that the jobs of a run leave, and what of it is not looked through."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.cli import main
from megatron_jobs.data.document_names import write_document_names
from megatron_jobs.data.token_file import write_token_file
from megatron_jobs.jobs.traces import trace_documents
from megatron_jobs.text.record import Record, to_line
from megatron_jobs.text.shards import write_shard
from tests.runs import make_job

WANTED = "ä/1"


def write_lines(path: Path, *lines: dict[str, Any]) -> None:
    with write_shard(path) as shard:
        for line in lines:
            shard.write(json.dumps(line).encode() + b"\n")


def write_tokens(prefix: Path, *names: str) -> None:
    prefix.parent.mkdir(parents=True)
    with write_token_file(prefix, vocab_size=9) as tokens:
        tokens.add([1] * len(names), [1] * len(names))
    with write_document_names(prefix) as writer:
        writer.add_names(names)


def test_lines_of_every_kind(tmp_path: Path) -> None:
    job = make_job(tmp_path, "clean", stage="redact").path
    record, other = {"id": WANTED, "text": "t"}, {"id": "b", "text": f'"{WANTED}"'}
    damaged = base64.b64encode(json.dumps(record).encode()[:-2]).decode()
    by_place = {"place": WANTED, "reason": "r", "bytes": 1, "head": ""}
    write_lines(job / "documents/books/000000.jsonl.zst", other, record)
    write_lines(job / "rejected/000000.jsonl.zst", record)
    write_lines(job / "quarantined/000000.jsonl.zst", {"place": "x", "head": damaged}, by_place)
    write_lines(job / "hits/000000.jsonl.zst", {"set": "s", "document": WANTED})
    write_lines(job / "review/000000.jsonl.zst", {"kind": "email", "id": WANTED})
    (job / "review.jsonl").write_text(json.dumps({"kind": "email", "id": WANTED}) + "\n")
    tokens = make_job(tmp_path, "tokens", stage="tokenize").path
    unread = json.dumps(record, ensure_ascii=False)[:-1]
    lines = [{"file": "f", "line": 3, "text": "x"}, {"file": "f", "line": 4, "text": unread}]
    (tokens / "rejected.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    export = make_job(tmp_path, "export", stage="export").path
    (export / "documents").mkdir()
    with gzip.open(export / "documents/000000.jsonl.gz", "wb") as file:
        file.write(to_line(Record(WANTED, "t")))
    found, line = trace_documents(tmp_path, [WANTED, "f:3"]).traces
    assert sorted(found.shards) == [
        "clean/documents/books/000000.jsonl.zst:2",
        "clean/hits/000000.jsonl.zst:1",
        "clean/quarantined/000000.jsonl.zst:1",
        "clean/quarantined/000000.jsonl.zst:2",
        "clean/rejected/000000.jsonl.zst:1",
        "clean/review.jsonl:1",
        "clean/review/000000.jsonl.zst:1",
        "export/documents/000000.jsonl.gz:1",
        "tokens/rejected.jsonl:2",
    ]
    assert line.shards == ["tokens/rejected.jsonl:1"]


def test_tokens_that_nothing_was_trained_on(tmp_path: Path) -> None:
    job = make_job(tmp_path, "tokens", stage="tokenize").path
    write_tokens(job / "tokens/tokens", "a", WANTED)
    write_tokens(job / "tasks/0-999/1/tokens/part-000003/tokens", WANTED)
    write_tokens(tmp_path / ".replaced/tokens-20260101-120000-000000/tokens/tokens", WANTED, "a")
    search = trace_documents(tmp_path, [WANTED])
    places = {
        place["file"].removeprefix(f"{tmp_path}/"): place["document"]
        for place in search.traces[0].tokens
    }
    assert places == {
        "tokens/tokens/tokens": 1,
        "tokens/tasks/0-999/1/tokens/part-000003/tokens": 0,
        ".replaced/tokens-20260101-120000-000000/tokens/tokens": 0,
    }
    assert search.unsearched == search.untold == []


def test_records_of_tasks_and_of_outdated_work(tmp_path: Path) -> None:
    """A shard that is linked from its task stands in both folders, and has to go from both."""
    job = make_job(tmp_path, "clean", stage="filter").path
    task = job / "tasks/0-999/0/documents/000000.jsonl.zst"
    write_lines(task, {"id": WANTED})
    (job / "documents").mkdir()
    (job / "documents/000000.jsonl.zst").hardlink_to(task)
    moved = tmp_path / ".replaced/clean-20260101-120000-000000/rejected/000000.jsonl.zst"
    write_lines(moved, {"id": WANTED})
    found = trace_documents(tmp_path, [WANTED])
    assert sorted(found.traces[0].shards) == [
        ".replaced/clean-20260101-120000-000000/rejected/000000.jsonl.zst:1",
        "clean/documents/000000.jsonl.zst:1",
        "clean/tasks/0-999/0/documents/000000.jsonl.zst:1",
    ]
    assert trace_documents(tmp_path, [WANTED], shards=False).traces[0].shards == []


def test_what_was_not_looked_through_and_what_cannot_be_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = make_job(tmp_path, "clean", stage="filter").path
    write_lines(clean / "documents/000000.jsonl.zst", {"id": "b"})
    (clean / "documents/000001.jsonl.zst").write_bytes(b"cut short")
    (clean / "documents/.000002.jsonl.zst.partial-x").write_bytes(b"")
    (clean / "counts.json").write_text("{}")
    export = make_job(tmp_path, "export", stage="export").path
    (export / "documents").mkdir()
    (export / "documents/000000.parquet").write_bytes(b"")
    fetch = make_job(tmp_path, "fetch", stage="fetch").path
    (fetch / "files").mkdir()
    (fetch / "files/a.json").write_text("{}")
    tokens = make_job(tmp_path, "tokens", stage="tokenize").path
    write_tokens(tokens / "tokens/tokens", "a")
    (tokens / "tokens/tokens.names").unlink()
    assert main(["data", "find", str(tmp_path), WANTED]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [WANTED, "  found nowhere", "cannot be told:"]
    assert lines[3].startswith("  clean/documents/000001.jsonl.zst: cannot be read to its end: ")
    assert lines[-3:] == [
        "  tokens/tokens/tokens.bin has no names beside it",
        "not looked through:",
        "  clean/documents (unfinished), export/documents, fetch/files",
    ]
    assert main(["data", "find", str(tmp_path), WANTED, "--no-shards"]) == 0
    assert "  the records of all jobs, clean" in capsys.readouterr().out


def test_many_outputs_fit_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(12):
        job = make_job(tmp_path, f"fetch-{number}", stage="fetch").path
        (job / "files").mkdir()
        (job / "files/a.html").write_text("")
    write_tokens(make_job(tmp_path, "tokens", stage="tokenize").path / "tokens/tokens", "a")
    assert main(["data", "find", str(tmp_path), "a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a", "  tokens tokens/tokens/tokens.bin, document 0"]
    assert len(lines) > 4
    assert max(map(len, lines)) <= 100
