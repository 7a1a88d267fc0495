"""What became of the jobs of a run, here or on Slurm; cancelling them.

The truth is put together from the receipt, from Slurm, from events, and from what a local run
leaves. Slurm is asked twice, once for the living and once for history, however many jobs there are.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.tree import no_such
from megatron_jobs.errors import DataError, MegatronJobsError, UserError
from megatron_jobs.jobs.arrays import array_of, read_list, short_list
from megatron_jobs.jobs.costs import Costs, costs_of, prices_of
from megatron_jobs.jobs.folder import JobFolder, read_job
from megatron_jobs.jobs.lock import is_held
from megatron_jobs.jobs.logs import blame, job_logs, last_failure, last_stop, newest_log
from megatron_jobs.jobs.queue import SlurmState, cancel, live_states, slurm_states
from megatron_jobs.jobs.reasons import plain_reason
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.starts import join_starts, noted_starts, with_gpus
from megatron_jobs.jobs.states import is_waiting, judge_job
from megatron_jobs.jobs.tasks import overall, task_states, waits_for

Record = dict[str, Any]
"""What is known of one job:

job, stage, after           its name, what it does, the names of those it waits for
state                       waiting, running, done, failed, cancelled, stopped, interrupted, unknown
slurm_id, slurm_ids         the one that counts now; all of them, the newest last
slurm_state, reason         Slurm's word; why it is in this state, in plain words
expected                    when Slurm means to start it, in seconds since 1970, or None
restarts, seconds           how often it went on; of the last start
tasks                       of a job that is cut into tasks: state -> their numbers, as `0-7,9`
progress, numbers           of a running job, as its leader wrote it; of a done one
starts, costs               each `Start` that is known; `Costs` over all of them
verdict, postmortem         the event `failed` of the last start, or None; its report's path, or ""
"""
Ask = Callable[[Sequence[str]], Mapping[str, SlurmState]]
"""What Slurm says of some jobs."""
ENDED_BADLY = ("failed", "cancelled", "stopped")
SILENT = "Slurm does not answer now"
"""Beginning of the reason of a job that is `unknown` for a while only."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What Slurm says of the jobs of a run."""

    ids: Mapping[str, list[str]]
    """Slurm's ids of each job, the newest last; not of jobs for which they cannot be read."""
    states: Mapping[str, SlurmState]
    silence: str = ""
    """Why it does not answer, if there is a Slurm that does not."""


def plan_status(run: Path, ask: Ask = slurm_states) -> list[Record]:
    """One record for each job that stands in the run folder, each after those it waits for.

    Raises: UserError when it is no run folder.
    """
    jobs = read_jobs(run)
    answer = _ask_slurm(ask, run, list(jobs))
    records: dict[str, Record] = {}
    for name, description in jobs.items():
        folder = JobFolder(run / name)
        try:
            records[name] = _record(folder, description, answer, records)
        except DataError as error:  # the other jobs can be told of all the same
            records[name] = _unreadable(folder, description, str(error))
    return list(records.values())


def _record(
    folder: JobFolder, description: Record, answer: Answer, records: Mapping[str, Record]
) -> Record:
    """What is known of one job; `records` are those of jobs before it."""
    name, states = folder.path.name, answer.states
    ids = answer.ids[name] if name in answer.ids else folder.slurm_ids()
    slurm_id = current_id(ids, states)
    record = _facts(folder, description, ids)
    record |= judge_job(folder, slurm_id, states)
    if description["resources"]["tasks"] > 1 and record["state"] != "done":
        record |= _of_tasks(folder, record, states)
    if record["state"] in ("waiting", "cancelled") and slurm_id:
        record["reason"] = _why_not(record, records)
    if record["state"] == "unknown" and answer.silence:
        record["reason"] = f"{SILENT} ({answer.silence})"
    return record | _spent(folder, record, description["resources"], states)


def _unreadable(folder: JobFolder, description: Record, why: str) -> Record:
    """What is said of a job of which a file cannot be read."""
    record = _facts(folder, description, [])
    record |= {"slurm_id": "", "slurm_state": "", "restarts": 0, "seconds": None}
    return record | {"state": "unknown", "reason": why, "starts": [], "costs": Costs()}


def current_id(ids: Sequence[str], states: Mapping[str, SlurmState]) -> str:
    """The Slurm job that counts: the one that runs, or the first that waits, or the newest."""
    living = [slurm_id for slurm_id in ids if slurm_id in states and states[slurm_id].living]
    running = [slurm_id for slurm_id in living if not is_waiting(states[slurm_id])]
    return next(iter([*running, *living, *ids[-1:]]), "")


def goes_on(run: Path, job: str) -> bool:
    """Whether a job of a run is waiting or running; when Slurm does not answer, it is."""
    folder = JobFolder(run / job)
    ids = folder.slurm_ids()
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
    known = read_jobs(run)
    for name in jobs:
        if name not in known:
            raise UserError(no_such("job", name, sorted(known)))
    pairs = [(n, slurm_id) for n in jobs or known for slurm_id in JobFolder(run / n).slurm_ids()]
    living = live_states([slurm_id for _, slurm_id in pairs])
    chosen = [(name, slurm_id) for name, slurm_id in pairs if slurm_id in living]
    cancel([slurm_id for _, slurm_id in chosen])
    return chosen


def log_files(run: Path, job: str, rank: int | None, task: int | None = None) -> list[Path]:
    """The log of one rank, or all logs of a job or task; see `jobs.logs.job_logs`.

    Raises: UserError when there is no such job or task, or no such log yet.
    """
    known = read_jobs(run)
    if job not in known:
        raise UserError(no_such("job", job, sorted(known)))
    folder, tasks = JobFolder(run / job), known[job]["resources"]["tasks"]
    if task is not None and (task >= tasks or tasks == 1):
        there = f"there are {tasks}, counted from 0" if tasks > 1 else "it is not cut into tasks"
        raise UserError(f"{job}: no task {task}; {there}")
    return job_logs(folder if task is None else folder.of_task(task), rank)


def failed_jobs(run: Path, job: str = "") -> list[JobFolder]:
    """The jobs of a run that failed, or the one that is named.

    Raises: UserError when there is no such job, or none that failed.
    """
    records = {record["job"]: record for record in plan_status(run)}
    if job and job not in records:
        raise UserError(no_such("job", job, sorted(records)))
    wanted = [job] if job else list(records)
    found = [
        name
        for name in wanted
        if records[name]["state"] == "failed" or last_failure(JobFolder(run / name))
    ]
    if not found:
        raise UserError(f"{job or run}: nothing failed; see: mj status {run}")
    return [_failed_folder(JobFolder(run / name), records[name]) for name in found]


def _failed_folder(folder: JobFolder, record: Record) -> JobFolder:
    """Where to look: that of the first task that failed, in a job with tasks."""
    tasks = record["tasks"].get("failed")
    return folder.of_task(read_list(tasks)[0]) if tasks else folder


def latest_job(run: Path) -> str:
    """The job of a run whose logs were written to last; UserError when none was."""
    written = {name: newest_log(JobFolder(run / name)) for name in read_jobs(run)}
    if not any(written.values()):
        raise UserError(f"{run}: no log yet; no job has started")
    return max(written, key=lambda name: (written[name], name))


def read_jobs(run: Path) -> dict[str, Record]:
    """What the config.yaml of each job of a run says, each after those it waits for.

    Raises: UserError when it is no run folder.
    """
    folders = sorted(path.parent for path in run.glob("*/config.yaml"))
    if not folders:
        raise UserError(f"{run}: no run folder: no job has been started or submitted in it")
    jobs = {folder.name: _description(folder) for folder in folders}
    after = {name: [n for n in job["after"] if n in jobs] for name, job in jobs.items()}
    try:
        order = list(TopologicalSorter(after).static_order())
    except CycleError:  # the plan was turned round since: some wrote down what they waited for then
        order = sorted(after)
    return {name: jobs[name] for name in order}


def _description(folder: Path) -> Record:
    """What a job's config.yaml says; UserError when it is not one of ours."""
    description = read_job(JobFolder(folder))
    if not isinstance(description, dict) or "stage" not in description:
        raise UserError(f"{folder / 'config.yaml'}: not a job's; is {folder.parent} a run folder?")
    asked = Resources().model_dump() | (description.get("resources") or {})
    return description | {"after": list(description.get("after") or []), "resources": asked}


def _ask_slurm(ask: Ask, run: Path, names: list[str]) -> Answer:
    """The ids of each job, and what Slurm knows of them.

    It is nothing where there is no Slurm, as on a machine the run was copied to. A job that goes on
    under a new id while Slurm is asked is asked for again: its old id has ended.
    """
    ids: dict[str, list[str]] = {}
    states: Mapping[str, SlurmState] = {}
    while (now := _readable_ids(run, names)) != ids:
        ids = now
        try:
            states = ask([slurm_id for found in ids.values() for slurm_id in found])
        except UserError:
            states = {}
        except MegatronJobsError as error:
            return Answer(ids, {}, silence=str(error).partition("; ")[0])
    return Answer(ids, states)


def _readable_ids(run: Path, names: list[str]) -> dict[str, list[str]]:
    """Slurm's ids of each job; a job whose ids cannot be read is left out."""
    ids: dict[str, list[str]] = {}
    for name in names:
        with contextlib.suppress(DataError):  # that is said where the job is told of
            ids[name] = JobFolder(run / name).slurm_ids()
    return ids


def _facts(folder: JobFolder, description: Record, ids: list[str]) -> Record:
    """What holds in every state."""
    record: Record = {"job": folder.path.name, "stage": description["stage"]}
    record |= {"after": description["after"], "slurm_ids": ids, "expected": None}
    record |= {"progress": None, "numbers": {}, "verdict": last_failure(folder), "tasks": {}}
    return record | {"postmortem": str(folder.postmortem) if folder.postmortem.exists() else ""}


def _spent(
    folder: JobFolder, record: Record, resources: Record, states: Mapping[str, SlurmState]
) -> Record:
    """The starts that Slurm and files know, and what they cost."""
    ids = [slurm_id for slurm_id in states if array_of(slurm_id) in record["slurm_ids"]]
    asked = {slurm_id: _gpus_asked(slurm_id, resources) for slurm_id in ids}
    told = [with_gpus(start, asked[i]) for i in ids for start in states[i].starts]
    noted = noted_starts(folder, resources, running=record["state"] == "running")
    starts = join_starts(told, noted)
    receipt = read_receipt(folder) or {}
    joules = receipt.get("energy_joules")
    costs = costs_of(starts, prices_of(folder), now=time.time(), joules=joules)
    return {"starts": starts, "costs": costs}


def _gpus_asked(slurm_id: str, resources: Record) -> int:
    """GPUs of each node of a Slurm job; those of a job with tasks are the tasks', each in an
    array: what gathers has none that are known."""
    gathers = resources["tasks"] > 1 and array_of(slurm_id) == slurm_id
    return 0 if gathers else int(resources["gpus"])


def _of_tasks(folder: JobFolder, record: Record, states: Mapping[str, SlurmState]) -> Record:
    """What the tasks of a job say of it; the job itself only gathers, after them."""
    here = not record["slurm_id"]
    found = task_states(folder, states, here=here, held=here and record["state"] == "running")
    more: Record = {"tasks": {state: short_list(tasks) for state, tasks in found.items()}}
    whole = overall(found, here=here)
    if not whole or (here and record["state"] == "running"):
        return more
    more |= {"state": whole, "reason": ""}
    if whole == "waiting" and not here:
        more["reason"] = waits_for(folder, states)
    if whole in ("stopped", "interrupted"):
        stop = last_stop(folder.of_task(found[whole][0]))
        more["reason"] = stop["why"] if stop and not here else "run it again to go on"
    if whole == "failed":
        first = folder.of_task(found["failed"][0])
        more |= {"reason": f"task {first.task}: {blame(first)}", "verdict": last_failure(first)}
        more["postmortem"] = str(first.postmortem) if first.postmortem.exists() else ""
    return more


def _why_not(record: Record, records: Mapping[str, Record]) -> str:
    """Why a job waits, or was cancelled."""
    others = record["after"]
    bad = [name for name in others if records.get(name, {}).get("state") in ENDED_BADLY]
    if bad:
        return f"needs {', '.join(bad)}, which did not end well"
    if record["state"] == "cancelled":
        return "by hand"
    if record["reason"] == "Dependency":
        missing = [name for name in others if records.get(name, {}).get("state") != "done"]
        return f"after {', '.join(missing)}"
    return plain_reason(record["reason"])


def all_costs(records: Sequence[Record]) -> Costs:
    """What the whole run has cost so far."""
    return sum((record["costs"] for record in records), Costs())


def plain_record(record: Record) -> Record:
    """A record as plain values, for JSON."""
    starts = [start.as_record() for start in record["starts"]]
    return record | {"starts": starts, "costs": record["costs"].as_record()}
