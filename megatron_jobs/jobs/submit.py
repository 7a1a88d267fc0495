"""A plan on Slurm: one Slurm job for each of its jobs, chained by afterok.

In each job's folder stay the batch script (sbatch.sh), the calls that submitted it (submit.txt) and
Slurm's ids (slurm.json); of a job with tasks, tasks/sbatch-0.sh and so on are the scripts of its
arrays, and sbatch.sh is that of the job that gathers. submitit pickles `run_here` with the folder's
name and nothing else.
"""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from megatron_jobs.config.settings import Problem
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.chains import Work, submit_works, work_of
from megatron_jobs.jobs.cluster import Cluster, write_cluster
from megatron_jobs.jobs.events import note
from megatron_jobs.jobs.executor import JobExecutor, Submission, partition_of
from megatron_jobs.jobs.folder import JobFolder, write_job
from megatron_jobs.jobs.lock import is_held, make_run_folder, submitting
from megatron_jobs.jobs.plan import Job, Plan
from megatron_jobs.jobs.queue import call_slurm, cancel, live_states, time_of
from megatron_jobs.jobs.receipt import is_done, missing_tasks, note_inputs
from megatron_jobs.jobs.snapshot import CODE, snapshot_code
from megatron_jobs.jobs.software import mount_problems, python_of
from megatron_jobs.jobs.strikes import nodes_to_leave_out
from megatron_jobs.runtime.files import read_json, remove, write_json, write_text

SKIPPED = "done before"
"""In place of a Slurm id: the job's receipt holds."""
UNSAFE = {
    "%": "Slurm reads % in a folder's name as a pattern",
    "\\": "Slurm reads \\ in a folder's name as a pattern",
    ":": "PYTHONPATH, which names the copy of the code, is cut at a :",
}
"""What no run folder may have in its name, and why."""
IN_PLAIN_WORDS = {
    "Requested node configuration is not available": "no node has that many CPUs, GPUs or memory",
    "Node count specification invalid": "the partition has fewer nodes",
    "More processors requested than permitted": "no node has that many CPUs",
    "Requested time limit is invalid": "the time limit is over the partition's",
    "invalid partition specified": "there is no such partition",
    "Invalid account or account/partition combination": "the account may not use the partition",
    "Invalid qos specification": "the account may not use that QOS",
    "Invalid generic resource": "there are no GPUs of that type",
    "Memory specification can not be satisfied": "no node has that much memory",
    "Invalid feature specification": "no node has what the constraint names",
}
"""Slurm's words (sbatch of 22.05) -> what they mean for the job."""


def submit_plan(plan: Plan, cluster: Cluster, *, dry_run: bool) -> list[tuple[str, str]]:
    """Submit each job whose receipt does not hold; each waits for those it needs.

    Args:
        dry_run: print every script and call instead, and touch nothing.
    Returns: (job, Slurm id) in the plan's order; SKIPPED or a placeholder where there is no id.
    Raises: ConfigError with all that the cluster cannot give, UserError when Slurm refuses a job:
        then none was submitted, or those that were are cancelled.
    """
    _check(plan, cluster)
    waiting = _unfinished(plan)
    python = python_of(cluster)
    code = plan.run / CODE / "HASH"
    leave_out = tuple(_leave_out(cluster))
    works = [
        work_of(Submission(job, cluster, code, python, leave_out=leave_out), tasks)
        for job, tasks in waiting
    ]
    if dry_run:
        ids = submit_works(works, _print_call, [])
    else:
        jobs = [job for job, _ in waiting]
        _refuse_twice(jobs)
        for work in works:
            for draft in work.kinds():
                print(f"{draft.label}: {_ask_slurm(draft)}", file=sys.stderr)
        make_run_folder(plan.run)
        code = snapshot_code(plan.run) if works else code
        with submitting(plan.run):
            _refuse_twice(jobs)  # another may have been quicker
            ids = _submit_all([work.with_code(code) for work in works])
    return [(name, ids.get(name, SKIPPED)) for name in plan.jobs]


def _leave_out(cluster: Cluster) -> list[str]:
    """The nodes that no job is to be given now; says which, and why."""
    found = nodes_to_leave_out(cluster)
    for node, cause in found.items():
        print(f"{node} is left out, it is on the strike list: {cause}", file=sys.stderr)
    return list(found)


def run_here(folder: str) -> None:
    """Run the job of a folder with local processes: what submitit's pickle stands for."""
    command = [sys.executable, "-m", "megatron_jobs.enter", "--fork", folder]
    subprocess.run(command, check=True)


def _check(plan: Plan, cluster: Cluster) -> None:
    problems = list(plan_problems(plan, cluster))
    if problems:
        raise ConfigError(plan.shown, problems)


def plan_problems(plan: Plan, cluster: Cluster) -> Iterator[Problem]:
    """Yield (job.setting, sentence) for all that the cluster cannot give; Slurm is not asked."""
    for job in plan.jobs.values():
        found = [*cluster.refusals(job.resources), *mount_problems(cluster, job)]
        yield from ((f"{job.name}.{setting}", sentence) for setting, sentence in found)
        for sign in set(str(job.folder.path)) & set(UNSAFE):
            yield job.name, f"{job.folder.path}: {UNSAFE[sign]}; choose another name"


def foresee(job: Job, cluster: Cluster) -> str:
    """When and where Slurm could start the job, in plain words.

    Raises: UserError when it would refuse it.
    """
    code = job.run / CODE / "HASH"
    work = work_of(Submission(job, cluster, code, python_of(cluster)), range(job.resources.tasks))
    return "; ".join(_ask_slurm(draft) for draft in work.kinds())


def _unfinished(plan: Plan) -> list[tuple[Job, list[int]]]:
    """Jobs to submit, and which of their tasks.

    They are those without a receipt that holds, and all that come after one of them: of these no
    input can be read yet, and each task will see for itself whether it has anything to do.
    """
    waiting: dict[str, tuple[Job, list[int]]] = {}
    for job in plan.jobs.values():
        if any(other in waiting for other in job.after):
            waiting[job.name] = job, list(range(job.resources.tasks))
        elif not is_done(job):
            waiting[job.name] = job, missing_tasks(job)
    return list(waiting.values())


def _refuse_twice(jobs: list[Job]) -> None:
    """UserError when Slurm still holds one of the jobs: two would write into one folder."""
    for job in jobs:
        if is_held(job.folder):
            raise UserError(f"{job.name}: runs on this machine; wait for it, or stop it")
        if job.folder.kill_switch.exists():
            cure = f"remove it, or: mj resubmit {shlex.quote(str(job.run))}"
            raise UserError(f"{job.name}: {job.folder.kill_switch} is there; {cure}")
    ids = {job.name: job.folder.slurm_ids() for job in jobs}
    living = live_states([slurm_id for found in ids.values() for slurm_id in found])
    for name, found in ids.items():
        slurm_id = next((slurm_id for slurm_id in reversed(found) if slurm_id in living), "")
        if slurm_id:
            state = living[slurm_id].state.lower()
            cure = f"wait for it, or: mj cancel {shlex.quote(str(jobs[0].run))} {shlex.quote(name)}"
            raise UserError(f"{name}: already submitted, as Slurm job {slurm_id} ({state}); {cure}")


def _ask_slurm(draft: Submission) -> str:
    """Slurm's estimate; UserError when it would not take the job. Nothing is submitted."""
    script = JobExecutor(draft).render()
    done = call_slurm(["sbatch", "--test-only"], given=script)
    if done.returncode != 0:
        raise UserError(_refusal(draft, done.stderr))
    return _estimate(done.stderr)


def _estimate(words: str) -> str:
    """`Job 7 to start at 1795258411 using 4 processors on nodes n[1-2] ...` in short."""
    found = re.search(r"to start at (\S+) using (\d+) processors on nodes? (\S+)", words)
    if not found:
        return "Slurm would take it, and does not say when it could start"
    start = time_of(found[1])
    if start is None:
        when = "later"
    elif start - time.time() < 60:
        when = "at once"
    else:
        when = f"at {datetime.fromtimestamp(start):%Y-%m-%d %H:%M}"
    return f"could start {when} on {found[3]}, with {found[2]} CPUs in all"


def _refusal(draft: Submission, words: str) -> str:
    said = " ".join(
        words.replace("sbatch: error: ", "").replace("allocation failure: ", "").split()
    )
    plain = next((text for key, text in IN_PLAIN_WORDS.items() if key in said), "")
    asked, cluster = draft.job.resources, draft.cluster
    spares = f" (and {asked.spare_nodes} spare)" if asked.spare_nodes else ""
    each = f"{asked.ranks} ranks x {asked.cpus} cpus, {asked.gpus} gpus"
    size = f"{asked.nodes} nodes{spares} x {each}"
    where = f"partition {partition_of(draft.job, cluster) or 'by default'} of {cluster.name}"
    because = f"{plain} (Slurm: {said})" if plain else f"Slurm: {said}"
    if draft.leave_out:
        because += f"; left out by the strike list: {', '.join(draft.leave_out)}"
    return f"{draft.job.name}: asked for {size}, {asked.hours:g} h in {where}; refused: {because}"


def _print_call(submission: Submission) -> str:
    """Print the script and the call; the words that stand for the id."""
    if not submission.successor:
        print(f"# {submission.script}\n{JobExecutor(submission).render()}")
    print(f"$ {shlex.join(submission.command())}\n")
    what = [f"successor {submission.successor}"] if submission.successor else []
    if submission.part is not None:
        what.append(f"tasks {submission.part.tasks[0]} to {submission.part.tasks[-1]}")
    return f"<id of {' of '.join([*what, submission.job.name])}>"


def _submit_all(works: list[Work]) -> dict[str, str]:
    """Slurm id of each job; when one cannot be submitted the earlier ones are cancelled."""
    works_of = {work.job.name: work for work in works}
    made: list[str] = []

    def submit(submission: Submission) -> str:
        if submission.place == 0 and not submission.successor:
            _prepare(works_of[submission.job.name].job, submission.cluster)
        return _submit(submission)

    try:
        return submit_works(works, submit, made)
    except BaseException:
        cancel(made)
        raise


def _prepare(job: Job, cluster: Cluster) -> None:
    """Write down what is about to be submitted."""
    write_job(job.folder, job.description())
    write_cluster(job.folder, cluster)
    note_inputs(job)
    note(job.folder, "submit")
    remove(_calls(job.folder))
    if job.folder.slurm.exists():
        write_json(job.folder.slurm, read_json(job.folder.slurm) | {"arrays": {}})
    job.folder.forget_moved()


def _submit(submission: Submission) -> str:
    """Submit a batch job, or a successor of one, and note the call and the id."""
    folder = submission.job.folder
    with _calls(folder).open("a", encoding="utf-8") as calls:
        calls.write(shlex.join(submission.command()) + "\n")
    slurm_id = _submit_again(submission) if submission.successor else _submit_first(submission)
    before = read_json(folder.slurm) if folder.slurm.exists() else {"ids": []}
    record = before | {"cluster": submission.cluster.name, "ids": [*before["ids"], slurm_id]}
    if submission.part is not None:
        array = {"offset": submission.part.offset, "indexes": submission.part.indexes}
        record["arrays"] = before.get("arrays", {}) | {slurm_id: array}
    write_json(folder.slurm, record)
    return slurm_id


def _submit_again(submission: Submission) -> str:
    done = call_slurm(submission.command("--parsable"))
    if done.returncode != 0:
        raise UserError(_refusal(submission, done.stderr))
    return done.stdout.strip().partition(";")[0]


def _submit_first(submission: Submission) -> str:
    from submitit.core.utils import FailedJobError

    executor = JobExecutor(submission)
    write_text(submission.script, executor.render())
    try:
        slurm_id: str = executor.submit(run_here, str(submission.job.folder.path)).job_id
    except FailedJobError as error:
        raise UserError(_refusal(submission, str(error))) from error
    return slurm_id


def _calls(folder: JobFolder) -> Path:
    """Each call of sbatch, as it was made."""
    return folder.path / "submit.txt"
