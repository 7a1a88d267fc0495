"""Run folders as jobs on a cluster leave them, written by hand."""

import datetime
import json
import os
from pathlib import Path
from typing import Any

import yaml

from megatron_jobs.config.resources import Resources
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.runtime.files import write_json, write_text

FIRST = 1_700_000_000.0
"""When these runs begin, in seconds since 1970."""
ECHO = "tests.stages.echo"


def make_job(run: Path, name: str, *, stage: str = ECHO, **settings: Any) -> JobFolder:
    """A job that has been submitted and has not started; `resources` and `after` as in a plan."""
    folder = JobFolder(run / name)
    folder.logs.mkdir(parents=True)
    asked = Resources().model_dump() | settings.pop("resources", {})
    description = {"stage": stage, "resources": asked, "after": settings.pop("after", [])}
    write_text(folder.config, yaml.safe_dump(description | settings, allow_unicode=True))
    return folder


def add_starts(folder: JobFolder, *times: tuple[float, float | None], slurm_id: str = "") -> None:
    """Starts as started.json holds them: (began, ended), counted from FIRST."""
    starts: list[dict[str, Any]] = []
    for began, ended in times:
        start = {"time": FIRST + began, "slurm_job_id": slurm_id, "energy_uj": None}
        starts.append(start | ({} if ended is None else {"ended": FIRST + ended}))
    write_json(folder.started, {"key": "k", "inputs": {}, "starts": starts})


def add_event(folder: JobFolder, at: float, event: str, /, **facts: Any) -> None:
    """A line of events.jsonl; the time is counted from FIRST."""
    record = {"time": FIRST + at, "event": event, "slurm_job_id": "", "host": "n1"} | facts
    with folder.events.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def add_receipt(folder: JobFolder, ended: float = 0, /, **changes: Any) -> None:
    """The receipt of a job that is done, since a time that is counted from FIRST."""
    when = datetime.datetime.fromtimestamp(FIRST + ended, datetime.UTC)
    receipt = {"numbers": {"ranks": 1}, "seconds": 4.0, "slurm_job_ids": [], "key": "k" * 64}
    receipt |= {"outputs": {"words": {"sha256": "0" * 64, "bytes": 1234}}, "host": "n1"}
    receipt |= {"ranks": 1, "versions": {"python": "3.11"}, "energy_joules": None}
    receipt |= {"ended": when.isoformat(timespec="seconds")}
    write_json(folder.receipt, receipt | changes)
    os.utime(folder.receipt, (FIRST + ended, FIRST + ended))


def add_losses(folder: JobFolder, losses: list[float | None], every: int = 10) -> None:
    """metrics.jsonl: a loss for each step from 1 on, and validations in between."""
    lines = []
    for step, loss in enumerate(losses, 1):
        lines.append({"step": step, "kind": "train", "loss": loss})
        if step % every == 0:
            lines.append({"step": step, "kind": "validation", "loss": (loss or 0) + 0.1})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    folder.path.joinpath("metrics.jsonl").write_text(text)
