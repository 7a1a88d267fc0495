"""Whose weights have seen a document, and in which step: over several jobs of a run."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.cli import main
from megatron_jobs.data.sample_index import index_identity, read_facts
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.jobs.traces import Trace, documents_of_step, trace_documents
from megatron_jobs.runtime.files import write_json
from tests.runs import make_job
from tests.unit.data.test_ledger import open_ledger

SIZE = 8
STAMP = "20260101-120000-000000"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An index of 18 steps, and another one of other documents, as two jobs leave them."""
    for name in ("blend", "other"):
        make_job(tmp_path, name, stage="index")
    open_ledger(tmp_path / "blend", sources=2, packing="none")
    open_ledger(tmp_path / "other", sources=1, packing="none")
    for file in (tmp_path / "other").glob("source0.*"):  # its documents go by other names
        if file.suffix == ".names":
            file.write_bytes(file.read_bytes().replace(b"s0-d", b"x0-d"))
    return tmp_path


def train(run: Path, name: str, made: int, *, load: Path | None = None, **given: Any) -> Path:
    """A job that has made so many steps and saved every third; its folder."""
    index = given.pop("index", run / "blend/index")
    behind = given.pop("index_step", 0)
    settings = {"index": str(index), "batch": {"global_size": SIZE}, "steps": 18}
    settings |= {"load": load and str(load), "finetune": False} | given
    job = make_job(run, name, stage="pretrain", **settings).path
    lines = [json.dumps({"step": step, "kind": "train"}) for step in range(1, made + 1)]
    (job / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    note = {"identity": index_identity(read_facts(index)), "step": behind}
    for step in range(behind + 3, made + 1, 3):
        record = {"step": step, "record": {"index": note, "samples_per_step": SIZE}}
        write_json(job / f"checkpoints/step-{step:08}/manifest.json", record)
    if load:
        write_json(job / "loaded.json", {"checkpoint": str(load), "step": 0, "index_step": behind})
    return job


def first_steps(index: Path) -> dict[str, int]:
    """In which step each document of an index comes first, by reading all samples."""
    from megatron_jobs.data.ledger import Ledger
    from megatron_jobs.data.sample_index import SampleIndex

    ledger = Ledger(SampleIndex.open(index))
    found: dict[str, int] = {}
    samples = ledger.splits["train"]
    for sample in range(len(samples)):
        for token in samples[sample].tolist():
            source, sequence = divmod(token, 1000)
            found.setdefault(f"s{source}-d{sequence // 2}", sample // SIZE + 1)
    return found


def document_of(index: Path, first: int) -> str:
    """One that comes first in a step."""
    return next(name for name, step in first_steps(index).items() if step == first)


def trace(run: Path, name: str) -> Trace:
    return trace_documents(run, [name]).traces[0]


def checkpoints(found: Trace) -> dict[str, list[str]]:
    return {job: [Path(path).name for path in paths] for job, paths in found.checkpoints.items()}


def test_weights_that_began_with_others_have_seen_what_those_saw(run: Path) -> None:
    first = train(run, "first", 9)
    loaded = first / "checkpoints/step-00000006"
    other = run / "other/index"
    train(run, "second", 12, load=loaded, index=other, index_step=6)
    third = train(run, "third", 3, load=run / "second/checkpoints", index=other, finetune=True)
    convert = make_job(run, "convert", stage="convert", source=str(third / "checkpoints"))
    (convert.path / "model").mkdir()
    early, late = document_of(run / "blend/index", 4), document_of(run / "blend/index", 7)
    assert checkpoints(trace(run, early)) == {
        "first": ["step-00000006", "step-00000009"],
        "second": ["step-00000009", "step-00000012"],
        "third": ["step-00000003"],
        "convert": ["model"],
    }
    assert checkpoints(trace(run, late)) == {"first": ["step-00000009"]}


def test_weights_of_another_run_are_followed(run: Path, tmp_path: Path) -> None:
    first = train(run, "first", 9)
    name = document_of(run / "blend/index", 2)
    elsewhere = tmp_path / "elsewhere"
    train(elsewhere, "tune", 3, load=first / "checkpoints", index=run / "other/index")
    found = trace_documents(elsewhere, [name])
    assert checkpoints(found.traces[0]) == {"tune": ["step-00000003"]}
    assert found.untold == []


def test_weights_of_nobody_are_told_of(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stranger = run.parent / "bought"
    train(run, "tune", 3, load=stranger)
    assert main(["data", "find", str(run), "nobody"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"cannot be told: tune: what {stranger} had seen, with which it began" in out


@pytest.mark.parametrize("noted", ["loaded.json", "manifest.json"])
def test_steps_of_a_training_that_went_on_are_those_of_the_run(run: Path, noted: str) -> None:
    before = run / "gone/checkpoints/step-00000100"
    second = train(run, "second", 106, load=before, index_step=100, steps=110)
    if noted == "manifest.json":
        (second / "loaded.json").unlink()
    name = document_of(run / "blend/index", 2)
    found = trace(run, name)
    assert found.steps["second"][0] == 102
    assert checkpoints(found)["second"] == ["step-00000103", "step-00000106"]
    assert name in [row[2] for row in documents_of_step(run, 102)]
    assert name not in [row[2] for row in documents_of_step(run, 101)]
    wanted = f"step: found 100, second has 101 to 110; those before are of {before}"
    with pytest.raises(UserError, match=wanted):
        documents_of_step(run, 100)


def test_a_checkpoint_tells_of_steps_that_nothing_else_does(run: Path) -> None:
    job = train(run, "silent", 9)
    (job / "metrics.jsonl").unlink()
    name = document_of(run / "blend/index", 4)
    found = trace(run, name)
    assert found.steps["silent"][0] == 4
    assert checkpoints(found)["silent"] == ["step-00000006", "step-00000009"]
    later = found.planned["silent"][0]
    write_json(job / "progress.json", {"done": later})
    assert trace(run, name).steps["silent"] == [*found.steps["silent"], later]


def test_no_step_is_to_come_that_no_job_will_make(run: Path) -> None:
    train(run, "short", 9, steps=11)
    found = trace_documents(run, first_steps(run / "blend/index")).traces
    assert {step for trace in found for step in trace.planned.get("short", [])} == {10, 11}
    with pytest.raises(UserError, match="step: found 12, short has 1 to 11"):
        documents_of_step(run, 12)


def test_a_training_whose_index_is_gone_is_told_of(run: Path) -> None:
    train(run, "first", 9)
    (run / "blend/index").rename(run / "away")
    found = trace_documents(run, ["s0-d3"])
    gone = f"first: {run}/blend/index is not what it was trained on, or gone"
    assert found.traces[0].steps == {}
    assert found.untold == [gone]
    with pytest.raises(DataError, match="first: its index is not what it was trained on, or gone"):
        documents_of_step(run, 1)


@pytest.mark.parametrize("tokens", ["of the index's job", "of a job that stays"])
def test_an_index_that_was_made_anew_is_not_taken_for_the_old(run: Path, tokens: str) -> None:
    """The old one is found where it was moved, and so are its token files."""
    train(run, "first", 9)
    name = document_of(run / "blend/index", 4)
    moved = place = run / f".replaced/blend-{STAMP}"
    if tokens == "of a job that stays":
        place = make_job(run, "tokens", stage="tokenize").path
        for file in (run / "blend").glob("source*"):
            file.rename(place / file.name)
        facts = read_facts(run / "blend/index")
        for source in facts["sources"]:
            source["prefix"] = f"../../tokens/{Path(source['prefix']).name}"
        write_json(run / "blend/index/index.json", facts)
    moved.parent.mkdir()
    (run / "blend").rename(moved)
    make_job(run, "blend", stage="index")
    open_ledger(run / "blend", sources=1, packing="best_fit")
    found = trace_documents(run, [name])
    assert found.untold == []
    assert found.traces[0].steps["first"][0] == 4
    files = {one["file"] for one in found.traces[0].tokens}
    assert str(place / f"source{name[1]}") in files


@pytest.mark.parametrize("finished", [False, True])
def test_what_was_moved_aside_is_found(run: Path, finished: bool) -> None:
    job = train(run, "first", 9)
    settings = {"stage": "pretrain", "index": str(run / "blend/index")}
    (job / "config.yaml").unlink()
    if finished:
        write_json(job / "receipt.json", {"config": settings})
    (run / ".replaced").mkdir()
    job.rename(run / f".replaced/first-{STAMP}")
    train(run, "first", 0, index=run / "other/index")
    found = trace(run, document_of(run / "blend/index", 4))
    name = f".replaced/first-{STAMP}"
    assert checkpoints(found) == {name: ["step-00000006", "step-00000009"]}
    assert found.steps[name][0] == 4
    assert found.planned == {}


def test_weights_are_those_that_stood_there_when_they_were_taken(run: Path) -> None:
    """`first` was trained anew, on other documents, after `second` had begun with its weights."""
    old = train(run, "first", 9)
    (run / ".replaced").mkdir()
    old.rename(run / f".replaced/first-{STAMP}")
    new = train(run, "first", 9, index=run / "other/index")
    second = train(run, "second", 3, load=new / "checkpoints", index=run / "other/index")
    name = document_of(run / "blend/index", 2)
    assert "second" not in trace(run, name).checkpoints
    then = time.mktime((2025, 12, 31, 0, 0, 0, 0, 0, -1))
    os.utime(second / "loaded.json", (then, then))
    assert checkpoints(trace(run, name))["second"] == ["step-00000003"]


def test_a_training_that_waits_is_told_of(run: Path) -> None:
    job = train(run, "later", 0, load=run / "first/checkpoints", steps=20)
    (job / "loaded.json").unlink()
    found = trace_documents(run, ["s0-d3"])
    assert found.untold == ["later: its steps, before it has begun with its `load`"]
    with pytest.raises(UserError, match="later has not begun; its `load` decides what is read"):
        documents_of_step(run, 1)
