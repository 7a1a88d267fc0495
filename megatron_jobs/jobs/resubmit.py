"""Submitting a run once more, as it was submitted last.

RUN/submit.json holds the last call: plan, words, cluster, when and who.
"""

import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.cluster import Cluster, cluster_of, load_cluster
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.lock import is_held
from megatron_jobs.jobs.plan import Plan, find_plan, load_plan, load_run
from megatron_jobs.jobs.queue import cancel, live_states
from megatron_jobs.jobs.status import ENDED_BADLY, Record, plan_status, read_jobs
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.jobs.user import user_name
from megatron_jobs.runtime.files import read_json, write_json

NAME = "submit.json"
NEVER = "DependencyNeverSatisfied"
"""Slurm's reason of a job that it has seen to wait in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """How a run was submitted."""

    plan: str
    """The plan's file, absolute."""
    shown: str
    """As it was typed."""
    words: tuple[str, ...]
    cluster: str
    """The profile, as it was typed; a file's absolute path."""
    folder: str
    """Where it was typed: paths in `words` are meant from there."""
    time: float
    user: str


def call_of(plan: str, words: list[str], cluster: str) -> Call:
    """This call, to be remembered."""
    profile = Path(cluster)
    return Call(
        plan=str(find_plan(plan).absolute()),
        shown=plan,
        words=tuple(words),
        cluster=str(profile.absolute()) if profile.is_file() else cluster,
        folder=str(Path.cwd()),
        time=time.time(),
        user=user_name(),
    )


def remember(run: Path, call: Call) -> None:
    """Write RUN/submit.json."""
    write_json(run / NAME, asdict(call))


def resubmit_run(
    run: Path, words: list[str], *, cluster: str, dry_run: bool
) -> list[tuple[str, str]]:
    """Submit a run again as it was submitted last: what is missing, with the plan as it is now.

    Without the plan's file the jobs' own config.yaml are the plan. The switches KILL are removed,
    and Slurm's jobs are cancelled that can never start, since what they wait for has failed.

    Args:
        words: more settings, after those of the last call.
        cluster: another profile; empty: the same.
    Returns: (job, Slurm id) in the plan's order.
    Raises: UserError when jobs of the run are still at work, naming them.
    """
    before = _last_call(run)
    plan, call = _plan_again(run, before, words)
    profile = _cluster_again(plan, cluster or (before.cluster if before else ""))
    if not dry_run:
        _refuse_living(run)
        for job in plan.jobs.values():
            job.folder.kill_switch.unlink(missing_ok=True)
    ids = submit_plan(plan, profile, dry_run=dry_run)
    if call is not None and not dry_run:
        chosen = call_of(call.plan, list(call.words), cluster or call.cluster)
        remember(run, Call(**asdict(chosen) | {"shown": call.shown, "folder": call.folder}))
    return ids


def _last_call(run: Path) -> Call | None:
    path = run / NAME
    if not path.exists():
        return None
    record = read_json(path)
    return Call(**record | {"words": tuple(record["words"])})


def _plan_again(run: Path, before: Call | None, words: list[str]) -> tuple[Plan, Call | None]:
    """The plan as it is now, and the call that stands for it; no call when its file is gone."""
    if before is not None and Path(before.plan).exists():
        all_words = (*before.words, *words)
        folder = Path(before.folder)
        with contextlib.chdir(folder) if folder.is_dir() else contextlib.nullcontext():
            plan = load_plan(before.plan, list(all_words), run.absolute())
        return plan, Call(**asdict(before) | {"words": all_words})
    gone = f"{before.plan} is gone" if before else f"{run / NAME} is not there"
    print(f"{gone}: the plan is made of the jobs' own config.yaml", file=sys.stderr)
    return load_run(run, words), None


def _cluster_again(plan: Plan, name: str) -> Cluster:
    """The profile of that name, or else the one kept beside a job of the run."""
    kept = filter(None, (cluster_of(job.folder) for job in plan.jobs.values()))
    cluster = load_cluster(name) if name else next(kept, None)
    return cluster or load_cluster("")


def _refuse_living(run: Path) -> None:
    """UserError naming the jobs that wait or run, here or on Slurm; it ends those in vain."""
    records = {record["job"]: record for record in plan_status(run)}
    vain = waiting_in_vain(list(records.values()))
    # read once more below: an id that came since is somebody else's, who was quicker
    judged = {slurm_id for name in vain for slurm_id in records[name]["slurm_ids"]}
    ids = {name: JobFolder(run / name).slurm_ids() for name in read_jobs(run)}
    living = live_states([slurm_id for found in ids.values() for slurm_id in found])
    at_work = [f"{name} (here)" for name in ids if is_held(JobFolder(run / name))]
    left = []
    for name, found in ids.items():
        waiting = [i for i in found if i in living and living[i].state == "PENDING"]
        left += [i for i in waiting if i in judged or living[i].reason == NEVER]
        states = [f"{i}, {living[i].state.lower()}" for i in found if i in living and i not in left]
        at_work += [f"{name} ({state})" for state in states]
    if at_work:
        cure = f"wait for them, or: mj cancel {shlex.quote(str(run))}"
        raise UserError(f"{run}: still at work: {', '.join(at_work)}; {cure}")
    cancel(left)


def waiting_in_vain(records: Sequence[Record]) -> set[str]:
    """Jobs of which all that waits on Slurm does so for what did not end well.

    Slurm drops it too, when it looks next: what gathers the tasks of a job, and jobs after it.
    """
    vain: set[str] = set()
    for record in records:
        ended = record["state"] in ENDED_BADLY
        if ended or (record["state"] == "waiting" and vain.intersection(record["after"])):
            vain.add(record["job"])
    return vain
