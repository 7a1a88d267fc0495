"""Where a document went in a run: shards, token files, training steps, checkpoints."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.folder import JobFolder, read_job
from megatron_jobs.jobs.status import read_jobs
from megatron_jobs.runtime.journal import read_journal

if TYPE_CHECKING:
    from megatron_jobs.data.ledger import Ledger

PRETRAIN = "pretrain"
STEP_FOLDER = re.compile(r"step-(\d{8,})")
"""As `checkpoint.manifest` names them."""
KINDS = ("documents", "rejected")
"""Outputs with shards of records."""


@dataclass(frozen=True)
class Training:
    """A job that trains on an index."""

    name: str
    index: Path
    samples_per_step: int
    last_step: int
    """That it has made, as metrics.jsonl has it; 0 before the first."""
    checkpoints: dict[int, Path]
    """By step."""


@dataclass
class Trace:
    """All places of one document in one run."""

    id: str
    shards: list[str] = field(default_factory=list)
    """JOB/KIND/FILE:LINE, relative to the run."""
    tokens: list[dict[str, Any]] = field(default_factory=list)
    """{job, file, document} for each document of that name in a token file."""
    steps: dict[str, list[int]] = field(default_factory=dict)
    """Job -> steps that it was trained on, of those made."""
    planned: dict[str, list[int]] = field(default_factory=dict)
    """Job -> steps that are still to come."""
    checkpoints: dict[str, list[str]] = field(default_factory=dict)
    """Job -> checkpoints written after it was first trained on."""


def trainings(run: Path) -> list[Training]:
    """The jobs of a run that train on an index that is there."""
    found = []
    for name in read_jobs(run):
        folder = JobFolder(run / name)
        if read_job(folder)["stage"] == PRETRAIN:
            found.append(_training(name, folder))
    return [training for training in found if training.index.is_dir()]


def _training(name: str, folder: JobFolder) -> Training:
    settings = read_job(folder)
    metrics = folder.path / "metrics.jsonl"
    steps = [line["step"] for line in read_journal(metrics)] if metrics.exists() else []
    saved = folder.path / "checkpoints"
    matches = (
        ((STEP_FOLDER.fullmatch(p.name), p) for p in saved.iterdir()) if saved.is_dir() else ()
    )
    return Training(
        name,
        Path(settings["index"]),
        int(settings["batch"]["global_size"]),
        max(steps, default=0),
        {int(match[1]): path for match, path in sorted(matches, key=str) if match},
    )


def trace_documents(run: Path, ids: Iterable[str], *, shards: bool = True) -> list[Trace]:
    """Find documents by their ids, in the order given.

    Args:
        shards: whether the shards of all jobs are read through as well.
    Raises: UserError when a run has neither shards nor a training; DataError when tokens have no
        names.
    """
    from megatron_jobs.data.ledger import Ledger
    from megatron_jobs.data.sample_index import SampleIndex

    traces = {name: Trace(name) for name in ids}
    found = trainings(run)
    files = _shards(run) if shards else []
    if not found and not files:
        raise UserError(f"{run}: no job in it has shards of records, or trains on an index")
    for file in files:
        _look_in_shard(run, file, traces)
    for training in found:
        ledger = Ledger(SampleIndex.open(training.index))
        for trace in traces.values():
            _look_in_training(training, ledger, trace)
    return list(traces.values())


def _shards(run: Path) -> list[Path]:
    from megatron_jobs.text.shards import SUFFIX

    places = [run / name / kind for name in read_jobs(run) for kind in KINDS]
    return [file for place in places for file in sorted(place.rglob(f"*{SUFFIX}"))]


def _look_in_shard(run: Path, file: Path, traces: dict[str, Trace]) -> None:
    """Note the lines of a shard that hold one of the documents."""
    from megatron_jobs.text.shards import read_shard

    for number, line in enumerate(read_shard(file), 1):
        name = orjson.loads(line)["id"]
        if name in traces:
            traces[name].shards.append(f"{file.relative_to(run)}:{number}")


def _look_in_training(training: Training, ledger: "Ledger", trace: Trace) -> None:
    steps: set[int] = set()
    for source, sequence in ledger.find(trace.id):
        place = {
            "job": training.name,
            "file": str(_prefix(ledger, source)),
            "document": ledger.document_of(source, sequence),
        }
        if place not in trace.tokens:
            trace.tokens.append(place)
        steps |= {
            sighting.sample // training.samples_per_step + 1
            for sighting in ledger.sightings(source, sequence)
            if sighting.split == "train"
        }
    made = sorted(step for step in steps if step <= training.last_step)
    coming = sorted(step for step in steps if step > training.last_step)
    if made:
        trace.steps[training.name] = made
        saw = [str(path) for step, path in training.checkpoints.items() if step >= made[0]]
        trace.checkpoints[training.name] = saw
    if coming:
        trace.planned[training.name] = coming


def documents_of_step(run: Path, step: int, job: str = "") -> list[tuple[int, str, str, int]]:
    """(sample, source, document, tokens) of all that a step is trained on, in order.

    Args:
        step: from 1.
        job: which training; "" where there is only one.
    Raises: UserError when there is no such training or step.
    """
    from megatron_jobs.data.ledger import Ledger
    from megatron_jobs.data.sample_index import SampleIndex

    training = _one_of(trainings(run), job, run)
    ledger = Ledger(SampleIndex.open(training.index))
    samples, size = ledger.splits["train"], training.samples_per_step
    if not 1 <= step <= len(samples) // size:
        raise UserError(f"step: found {step}, {training.name} can have 1 to {len(samples) // size}")
    return [
        (
            sample,
            _prefix(ledger, passage.source).parent.parent.name,
            ledger.name(passage.source, passage.sequence),
            passage.tokens,
        )
        for sample in range((step - 1) * size, step * size)
        for passage in ledger.passages("train", sample)
    ]


def _prefix(ledger: "Ledger", source: int) -> Path:
    """Of a token file, without the way to it from the index."""
    return Path(os.path.normpath(ledger.index.tokens[source].prefix))


def _one_of(found: Sequence[Training], job: str, run: Path) -> Training:
    named = [training for training in found if job in ("", training.name)]
    if len(named) == 1:
        return named[0]
    names = ", ".join(training.name for training in found) or "none"
    raise UserError(f"job: found {job or 'no name'}; {run} has these trainings: {names}")
