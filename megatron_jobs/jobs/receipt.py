"""Receipts: what a finished job read and wrote, by content. No receipt, not done.

The key of a job is the hash of its stage and its settings, with every input replaced by the hash of
its content, and without those that the stage names in LAYOUT; of a job that is cut into tasks, also
of their number. A receipt with the job's key holds: the job need not run again, wherever its folder
is. Each task has a key and a receipt of its own.
"""

import datetime
import functools
import hashlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from megatron_jobs.config.settings import input_paths
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.jobs.folder import TASKS, JobFolder, make_log_folders, versions, write_job
from megatron_jobs.jobs.plan import Job, input_problem
from megatron_jobs.runtime.files import (
    PARTIAL,
    read_json,
    remove,
    tree_bytes,
    tree_hash,
    whole_files,
    write_json,
)
from megatron_jobs.runtime.journal import NAME as METRICS
from megatron_jobs.runtime.progress import NAME as PROGRESS
from megatron_jobs.runtime.rank import slurm_job_id

REPLACED = ".replaced"
"""Folder of a run to which outdated work is moved: nothing is deleted in silence."""
SAID_BY_THE_JOB = ("config", "inputs", "versions")
"""What the receipt of a task leaves out."""
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
"""The processor's energy counter (Linux powercap), where the machine shows it."""


def read_receipt(folder: JobFolder) -> dict[str, Any] | None:
    """The receipt of a finished job, or None."""
    try:
        receipt: dict[str, Any] = read_json(folder.receipt)
    except FileNotFoundError:
        return None
    return receipt


def is_done(job: Job) -> bool:
    """Whether the job's receipt holds: same stage, settings and inputs, outputs still there.

    Raises: UserError when an input is not there.
    """
    return _holds(job, job_key(job, input_hashes(job)))


def missing_tasks(job: Job) -> list[int]:
    """The tasks of a job whose receipts do not hold, in order.

    Raises: UserError when an input is not there.
    """
    key = job_key(job, input_hashes(job))
    tasks = enumerate(job.tasks())
    return [number for number, task in tasks if not _holds(task, task_key(key, number))]


def _holds(job: Job, key: str) -> bool:
    receipt = read_receipt(job.folder)
    return receipt is not None and receipt["key"] == key and _outputs_stand(job, receipt)


def begin(job: Job) -> bool:
    """Make a job's or task's folder ready; False when its receipt holds and nothing is to do.

    Work that an earlier start left unfinished stays and is gone on with if its key is the same;
    work of other settings or other inputs is moved to RUN/.replaced.
    Raises: UserError when an input is not there.
    """
    inputs = input_hashes(job)
    note_inputs(job)
    key = job_key(job, inputs)
    if _holds(job, key):
        return False
    before = read_json(job.folder.started) if job.folder.started.exists() else {}
    if before and (before["key"] != key or job.folder.receipt.exists()):
        _move_aside(job)
        before = {}
    starts = _earlier_starts(job.folder, before)
    _forget_last_start(job.folder)
    if job.task is None:
        write_job(job.folder, job.description())
    else:
        job.folder.logs.mkdir(parents=True, exist_ok=True)
    make_log_folders(job.folder, job.asked.nodes)
    start = {"time": time.time(), "slurm_job_id": slurm_job_id(), "energy_uj": _energy_counter()}
    write_json(job.folder.started, {"key": key, "inputs": inputs, "starts": [*starts, start]})
    return True


def _earlier_starts(folder: JobFolder, started: dict[str, Any]) -> list[dict[str, Any]]:
    """The starts of work that is gone on with, the last ended when it last gave a sign of life."""
    starts: list[dict[str, Any]] = started.get("starts", [])
    if starts:
        # not the batch script's log: it has just been begun again
        signs = [*folder.rank_logs(), *folder.rank_errors()]
        signs += [folder.path / PROGRESS, folder.path / METRICS]
        signs += [folder.outcome, folder.stopped, folder.started]
        starts[-1]["ended"] = max(path.stat().st_mtime for path in signs if path.exists())
    return starts


def _forget_last_start(folder: JobFolder) -> None:
    """Remove what says how the last start ended."""
    for path in (folder.stopped, folder.outcome, folder.numbers, folder.path / PROGRESS):
        remove(path)
    for path in folder.rank_errors():
        remove(path)


def finish(job: Job) -> dict[str, Any]:
    """Write the receipt: the last thing a job does, after all its ranks have ended well.

    That of a task is short; that of a job with tasks counts their hours in.
    Raises: DataError when an output that the stage promises is not there.
    """
    started = read_json(job.folder.started)
    starts, ended = started["starts"], time.time()
    seconds = sum(start.get("ended", ended) - start["time"] for start in starts)
    hours = seconds / 3600
    slurm_ids = [start["slurm_job_id"] for start in starts if start["slurm_job_id"]]
    ran_on = job.asked
    receipt: dict[str, Any] = {
        "job": job.name,
        "stage": job.stage_name,
        "key": started["key"],
        "config": job.description(),
        "inputs": started["inputs"],
        "outputs": _outputs(job),
        "numbers": read_json(job.folder.numbers),
        "versions": versions(),
        "host": os.uname().nodename,
        "slurm_job_ids": list(dict.fromkeys(slurm_ids)),
        "starts": len(starts),
        "ranks": ran_on.world,
        "started": _iso(starts[0]["time"]),
        "ended": _iso(ended),
        "seconds": round(seconds, 3),
        "cpu_hours": round(hours * ran_on.world * ran_on.cpus, 6),
        "gpu_hours": round(hours * ran_on.nodes * ran_on.gpus, 6),
        "energy_joules": _joules_since(starts[0]["energy_uj"]) if len(starts) == 1 else None,
    }
    if job.task is not None:  # once for all tasks is enough
        receipt = {name: receipt[name] for name in receipt if name not in SAID_BY_THE_JOB}
    if job.gathers:
        receipt |= _with_tasks(job, receipt)
    remove(job.folder.path / PROGRESS)
    write_json(job.folder.receipt, receipt)
    return receipt


def _with_tasks(job: Job, gather: dict[str, Any]) -> dict[str, Any]:
    """What a receipt says in another way when there were tasks before the gather."""
    parts = [receipt for task in job.tasks() if (receipt := read_receipt(task.folder))]
    every = [*parts, gather]
    spans = [(_seconds_of(part["ended"]) - part["seconds"], part["seconds"]) for part in every]
    return {
        "tasks": len(parts),
        "starts": sum(part["starts"] for part in every),
        "started": min(part["started"] for part in every),
        "seconds": round(_covered(spans), 3),
        "cpu_hours": round(sum(part["cpu_hours"] for part in every), 6),
        "gpu_hours": round(sum(part["gpu_hours"] for part in every), 6),
        "energy_joules": None,  # a node's counter runs for all tasks on it
    }


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds in which at least one was at work, of (begin, seconds) of each."""
    total, until = 0.0, -math.inf
    for begun, seconds in sorted(spans):
        total += max(0.0, begun + seconds - max(begun, until))
        until = max(until, begun + seconds)
    return total


def input_hashes(job: Job) -> dict[str, str]:
    """Dotted setting -> content hash of each input; taken from the maker's receipt where it can."""
    hashes: dict[str, str] = {}
    for setting, path in input_paths(job.config):
        problem = input_problem(path)
        if problem:
            raise UserError(f"{job.name}.{setting}: {problem}")
        hashes[setting] = _known_hash(job, path) or _noted_hash(job, path)
    return hashes


def job_key(job: Job, inputs: dict[str, str]) -> str:
    """Hash of what the result depends on; not of where the job runs, on what ranks and how."""
    settings = job.config.model_dump(mode="json")
    for setting, content in inputs.items():
        _put(settings, setting.split("."), f"sha256:{content}")
    for setting in getattr(job.stage, "LAYOUT", ()):
        _put(settings, setting.split("."), None)
    cut = [job.resources.tasks] if job.resources.tasks > 1 else []
    text = json.dumps([job.stage_name, settings, *cut], sort_keys=True, ensure_ascii=False)
    key = hashlib.sha256(text.encode()).hexdigest()
    return key if job.task is None else task_key(key, job.task)


def task_key(key: str, number: int) -> str:
    """The key of a task of the job with this key."""
    return hashlib.sha256(f"{key} task {number}".encode()).hexdigest()


def note_inputs(job: Job) -> None:
    """Note in the job's folder what its inputs hash to; see `JobFolder.inputs`."""
    outside = {path for _, path in input_paths(job.config) if not _known_hash(job, path)}
    there = sorted(path for path in outside if not input_problem(path))
    notes = {str(path): [_stamp(path), _noted_hash(job, path)] for path in there}
    if notes != _input_notes(job):
        write_json(job.folder.inputs, notes)


def _input_notes(job: Job) -> dict[str, list[str]]:
    notes: dict[str, list[str]] = {}
    return read_json(job.folder.inputs) if job.folder.inputs.exists() else notes


def _noted_hash(job: Job, path: Path) -> str:
    """The hash of an input; it is read once, and again when it has been touched."""
    stamp = _stamp(path)
    noted = _input_notes(job).get(str(path))
    return noted[1] if noted and noted[0] == stamp else _hash_once(path, stamp)


@functools.cache
def _hash_once(path: Path, stamp: str) -> str:
    """The hash of an input, the same as long as its stamp is."""
    return tree_hash(path)


def _stamp(path: Path) -> str:
    """Names, sizes and times of all files of an input: other ones once it has been written to."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else whole_files(path):
        found = file.stat()
        digest.update(f"{file}\0{found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _put(values: Any, where: list[str], value: str | None) -> None:
    for part in where[:-1]:
        values = values[int(part)] if isinstance(values, list) else values[part]
    if isinstance(values, list):
        values[int(where[-1])] = value
    else:
        values[where[-1]] = value


def _known_hash(job: Job, path: Path) -> str | None:
    """The hash that the maker of `path` wrote into its receipt, if it is an output of this run."""
    if not path.is_relative_to(job.run):
        return None
    parts = path.relative_to(job.run).parts
    if len(parts) != 2:
        return None
    receipt = read_receipt(JobFolder(job.run / parts[0])) or {}
    known: str | None = receipt.get("outputs", {}).get(parts[1], {}).get("sha256")
    return known


def _outputs(job: Job) -> dict[str, dict[str, Any]]:
    outputs: dict[str, dict[str, Any]] = {}
    for name in job.stage.OUTPUTS:
        path = job.folder.path / name
        if not path.exists():
            raise DataError(f"{path}: stage {job.stage_name} promises it and did not write it")
        outputs[name] = {"sha256": tree_hash(path), "bytes": tree_bytes(path)}
    return outputs


def _outputs_stand(job: Job, receipt: dict[str, Any]) -> bool:
    """Whether every output is still there, at its size; contents are not read again."""
    folder = job.folder.path
    return all(
        (folder / name).exists() and tree_bytes(folder / name) == record["bytes"]
        for name, record in receipt["outputs"].items()
    )


def _move_aside(job: Job) -> None:
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    place = job.folder.path.relative_to(job.run)  # JOB, or JOB/tasks/GROUP/NUMBER
    target = job.run / REPLACED / f"{place}-{stamp}"
    target.mkdir(parents=True)
    names = {path.name for path in job.folder.path.iterdir() if PARTIAL not in path.name}
    if job.gathers:
        names -= {TASKS}  # each is judged by itself
    if job.task is not None and job.folder.receipt.exists():
        job.folder.receipt.rename(target / "receipt.json")
    last = job.folder.started.name  # as long as it is there the work is known to be outdated
    for name in sorted(names - job.folder.bookkeeping, key=lambda name: name == last):
        (job.folder.path / name).rename(target / name)
    print(f"{job.name}: what stood there, of other settings or inputs, is now in {target}")


def _energy_counter() -> int | None:
    try:
        return int(RAPL.read_text())
    except (OSError, ValueError):
        return None


def _joules_since(before: int | None) -> float | None:
    """Energy of this node's first processor since `before`; None where no counter can be read."""
    now = _energy_counter()
    if before is None or now is None or now < before:
        return None
    return (now - before) / 1e6


def _seconds_of(iso: str) -> float:
    return datetime.datetime.fromisoformat(iso).timestamp()


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
