"""What became of the jobs of a run, here or on Slurm; their logs; cancelling them.

The truth is put together from the receipt, from Slurm, and from what a local run leaves.
"""

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from megatron_jobs.config.tree import no_such
from megatron_jobs.errors import EXIT_DONE, EXIT_STOPPED, MegatronJobsError, UserError
from megatron_jobs.jobs.folder import JobFolder, read_job
from megatron_jobs.jobs.local import last_words
from megatron_jobs.jobs.lock import is_held
from megatron_jobs.jobs.queue import COMING_BACK, SlurmState, cancel, live_states, slurm_states
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.progress import read_progress

Record = dict[str, Any]
"""job, state (waiting, running, done, failed, cancelled, stopped, interrupted, unknown), slurm_id,
slurm_state, restarts, seconds, reason, progress, numbers."""
REASONS = {
    "None": "not looked at yet",
    "BeginTime": "put back in the queue, starts again in a moment",
    "Resources": "no free nodes",
    "Priority": "other jobs come first",
    "DependencyNeverSatisfied": "a job that it waits for did not end well",
}
"""Slurm's reasons for waiting, in plain words; others are shown as they are."""
BLAMED = re.compile(r"srun: error: (\S+): tasks? (\d+)[\d,-]*: (.+)")


def plan_status(run: Path) -> list[Record]:
    """One record for each job that stands in the run folder, each after those it waits for.

    Raises: UserError when it is no run folder.
    """
    after = _jobs(run)
    ids = {name: JobFolder(run / name).slurm_ids() for name in after}
    newest = {name: found[-1] for name, found in ids.items() if found}
    states = _ask_slurm(list(newest.values()))
    records: dict[str, Record] = {}
    for name, others in after.items():
        slurm_id = newest.get(name, "")
        record = _judge(JobFolder(run / name), slurm_id, states)
        if record["state"] in ("waiting", "cancelled") and slurm_id:
            record["reason"] = _why_not(record, others, records)
        records[name] = record
    return list(records.values())


def goes_on(run: Path, job: str) -> bool:
    """Whether a job of a run is waiting or running; when Slurm does not answer, it is."""
    folder = JobFolder(run / job)
    ids = folder.slurm_ids()[-1:]
    try:
        return is_held(folder) or bool(ids and live_states(ids))
    except UserError:  # no Slurm here
        return False
    except MegatronJobsError:
        return True


def cancel_run(run: Path, jobs: list[str]) -> list[tuple[str, str]]:
    """Cancel the named jobs of a run, or all; (job, Slurm id) of those that Slurm still held.

    Raises: UserError for a name that is no job of the run.
    """
    known = _jobs(run)
    for name in jobs:
        if name not in known:
            raise UserError(no_such("job", name, sorted(known)))
    ids = {name: JobFolder(run / name).slurm_ids()[-1:] for name in jobs or known}
    living = live_states([slurm_id for found in ids.values() for slurm_id in found])
    chosen = [(name, found[0]) for name, found in ids.items() if found and found[0] in living]
    cancel([slurm_id for _, slurm_id in chosen])
    return chosen


def log_files(run: Path, job: str, rank: int | None) -> list[Path]:
    """The log of one rank, or all logs of a job: that of the script or launcher, then each rank's.

    Raises: UserError when there is no such job, or no such log yet.
    """
    known = _jobs(run)
    if job not in known:
        raise UserError(no_such("job", job, sorted(known)))
    folder = JobFolder(run / job)
    ranks = sorted(folder.logs.glob("rank-*.log"))
    if rank is None:
        starts = [folder.logs / name for name in ("batch.log", "launch.log")]
        found = [path for path in starts if path.exists()] + ranks
        if not found:
            raise UserError(f"{job}: no log yet; it has not started")
        return found
    if folder.log(rank) not in ranks:
        there = f"there are {len(ranks)}, counted from 0" if ranks else "it has not started"
        raise UserError(f"{job}: no log of rank {rank}; {there}")
    return [folder.log(rank)]


def _jobs(run: Path) -> dict[str, list[str]]:
    """Each job of a run with the jobs it waits for, in an order in which it comes after them."""
    folders = sorted(path.parent for path in run.glob("*/config.yaml"))
    if not folders:
        raise UserError(f"{run}: no run folder: no job has been started or submitted in it")
    after = {folder.name: list(_description(folder).get("after") or []) for folder in folders}
    try:
        order = list(TopologicalSorter(after).static_order())
    except CycleError:  # the plan was turned round since: some wrote down what they waited for then
        order = sorted(after)
    return {name: after[name] for name in order if name in after}


def _description(folder: Path) -> Record:
    """What a job's config.yaml says; UserError when it is not one of ours."""
    description = read_job(JobFolder(folder))
    if not isinstance(description, dict) or "stage" not in description:
        raise UserError(f"{folder / 'config.yaml'}: not a job's; is {folder.parent} a run folder?")
    return description


def _ask_slurm(ids: list[str]) -> Mapping[str, SlurmState]:
    """What Slurm knows; nothing where there is no Slurm, as on a machine the run was copied to."""
    try:
        return slurm_states(ids)
    except UserError:
        return {}


def _judge(folder: JobFolder, slurm_id: str, states: Mapping[str, SlurmState]) -> Record:
    """The state of one job."""
    slurm = states.get(slurm_id)
    receipt = read_receipt(folder)
    record: Record = {"job": folder.path.name, "slurm_id": slurm_id, "reason": ""}
    record |= {"slurm_state": slurm.state if slurm else "", "restarts": 0, "seconds": None}
    if slurm is not None:
        record |= {"restarts": slurm.restarts, "seconds": slurm.seconds}
    if slurm is not None and slurm.living:
        return record | _living(folder, slurm)
    known = slurm is None or _is_of(receipt, slurm_id, slurm) or _ran_here_since(folder)
    if receipt is not None and known and not is_held(folder):
        numbers, seconds = receipt["numbers"], receipt["seconds"]
        return record | {"state": "done", "numbers": numbers, "seconds": seconds}
    if not slurm_id or _ran_here_since(folder):
        return record | {"slurm_id": "", "seconds": None} | _local(folder)
    if slurm is None:
        return record | {"state": "unknown", "reason": "no Slurm here that knows this job"}
    return record | _ended(folder, slurm)


def _is_of(receipt: Mapping[str, Any] | None, slurm_id: str, slurm: SlurmState) -> bool:
    """Whether a receipt is the newest Slurm job's work, or was found by it to hold."""
    ids = receipt["slurm_job_ids"] if receipt is not None else []
    return slurm_id in ids or slurm.state == "COMPLETED"


def _living(folder: JobFolder, slurm: SlurmState) -> Record:
    if slurm.state == "PENDING" or slurm.state in COMING_BACK:
        return {"state": "waiting", "reason": slurm.reason, "seconds": None}
    again = f"restart {slurm.restarts}" if slurm.restarts else ""
    return {"state": "running", "progress": read_progress(folder.path), "reason": again}


def _ended(folder: JobFolder, slurm: SlurmState) -> Record:
    """A Slurm job that ended without a receipt."""
    if slurm.state == "CANCELLED":
        return {"state": "cancelled"}
    if slurm.state == "COMPLETED":
        return {"state": "failed", "reason": f"no receipt; see {folder.logs / 'batch.log'}"}
    how = "" if slurm.state == "FAILED" else f"{slurm.state.lower().replace('_', ' ')}: "
    return {"state": "failed", "reason": f"{how}{blame(folder)}"}


def _why_not(record: Record, others: list[str], records: Mapping[str, Record]) -> str:
    """Why a job waits, or was cancelled."""
    bad = [name for name in others if records.get(name, {}).get("state") in ("failed", "cancelled")]
    if bad:
        return f"needs {', '.join(bad)}, which did not end well"
    if record["state"] == "cancelled":
        return "by hand"
    if record["reason"] == "Dependency":
        missing = [name for name in others if records.get(name, {}).get("state") != "done"]
        return f"after {', '.join(missing)}"
    said: str = record["reason"]
    return REASONS.get(said, said)


def blame(folder: JobFolder) -> str:
    """The rank that failed first with its last words and its log, as far as it is known.

    A rank that raised left its words in a file; of one that was killed srun says so.
    """
    files = sorted(folder.logs.glob("rank-*.error"), key=lambda path: path.stat().st_mtime_ns)
    if files:
        rank = int(files[0].stem.removeprefix("rank-"))
        words = last_words(folder, rank).splitlines()[-1:]
        return f"rank {rank}: {''.join(words)}; see {folder.log(rank)}"
    batch = folder.logs / "batch.log"
    lines = (
        batch.read_text(encoding="utf-8", errors="replace").splitlines() if batch.exists() else []
    )
    first = next((found for found in map(BLAMED.search, _last_start(lines)) if found), None)
    if first:
        host, task, how = first.groups()
        return f"rank {task} on {host}: {how}; see {folder.log(int(task))}"
    return f"{lines[-1]}; see {batch}" if lines else "left no log"


def _last_start(lines: list[str]) -> list[str]:
    """The part of a batch log that its last start wrote."""
    starts = [place for place, line in enumerate(lines) if " Slurm job " in line]
    return lines[starts[-1] :] if starts else lines


def _local(folder: JobFolder) -> Record:
    """A job that ran, or runs, on this machine without Slurm."""
    if is_held(folder):
        return {"state": "running", "progress": read_progress(folder.path)}
    if not folder.started.exists():
        return {"state": "waiting"}
    if not folder.outcome.exists():
        return {"state": "interrupted", "reason": "ended without a word; run it again to go on"}
    outcome = read_json(folder.outcome)
    if outcome["status"] == EXIT_STOPPED:
        return {"state": "stopped", "reason": "saved; run it again to go on"}
    if outcome["status"] == EXIT_DONE:
        return {"state": "interrupted", "reason": "before its receipt; run it again"}
    if outcome["signal"]:
        return {"state": "failed", "reason": f"rank {outcome['guilty']}: {outcome['signal']}"}
    return {"state": "failed", "reason": blame(folder)}


def _ran_here_since(folder: JobFolder) -> bool:
    """Whether it was started on this machine after it was submitted last."""
    launched = folder.logs / "launch.log"
    return launched.exists() and launched.stat().st_mtime > folder.slurm.stat().st_mtime
