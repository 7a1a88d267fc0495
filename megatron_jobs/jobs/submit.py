"""A plan on Slurm: one Slurm job for each of its jobs, chained by afterok.

In each job's folder stay the batch script (sbatch.sh), the call that submitted it (submit.txt) and
Slurm's ids (slurm.json). submitit pickles `run_here` with the folder's name and nothing else.
"""

import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

from megatron_jobs.config.settings import Problem
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.cluster import Cluster, write_cluster
from megatron_jobs.jobs.events import note
from megatron_jobs.jobs.executor import JobExecutor, Submission
from megatron_jobs.jobs.folder import JobFolder, write_job
from megatron_jobs.jobs.lock import is_held, make_run_folder
from megatron_jobs.jobs.plan import Job, Plan
from megatron_jobs.jobs.queue import call_slurm, cancel, live_states
from megatron_jobs.jobs.receipt import is_done
from megatron_jobs.jobs.snapshot import CODE, snapshot_code
from megatron_jobs.jobs.software import mount_problems, python_of
from megatron_jobs.runtime.files import write_json, write_text

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
    drafts = [Submission(job, cluster, plan.run / CODE / "HASH", python) for job in waiting]
    if dry_run:
        ids = _print_all(drafts)
    else:
        _refuse_twice(waiting)
        for draft in drafts:
            _ask_slurm(draft)
        make_run_folder(plan.run)
        code = snapshot_code(plan.run) if drafts else plan.run
        ids = _submit_all([replace(draft, code=code) for draft in drafts])
    return [(name, ids.get(name, SKIPPED)) for name in plan.jobs]


def run_here(folder: str) -> None:
    """Run the job of a folder with local processes: what submitit's pickle stands for."""
    command = [sys.executable, "-m", "megatron_jobs.enter", "--fork", folder]
    subprocess.run(command, check=True)


def _check(plan: Plan, cluster: Cluster) -> None:
    problems: list[Problem] = []
    for job in plan.jobs.values():
        found = [*cluster.refusals(job.resources), *mount_problems(cluster, job)]
        problems += [(f"{job.name}.{setting}", sentence) for setting, sentence in found]
        for sign in set(str(job.folder.path)) & set(UNSAFE):
            problems.append((job.name, f"{job.folder.path}: {UNSAFE[sign]}; choose another name"))
    if problems:
        raise ConfigError(plan.shown, problems)


def _unfinished(plan: Plan) -> list[Job]:
    """Jobs to submit: those without a receipt that holds, and all that come after one of them."""
    waiting: dict[str, Job] = {}
    for job in plan.jobs.values():
        if any(other in waiting for other in job.after) or not is_done(job):
            waiting[job.name] = job
    return list(waiting.values())


def _refuse_twice(jobs: list[Job]) -> None:
    """UserError when Slurm still holds one of the jobs: two would write into one folder."""
    for job in jobs:
        if is_held(job.folder):
            raise UserError(f"{job.name}: runs on this machine; wait for it, or stop it")
    ids = {job.name: job.folder.slurm_ids() for job in jobs}
    living = live_states([slurm_id for found in ids.values() for slurm_id in found])
    for name, found in ids.items():
        slurm_id = next((slurm_id for slurm_id in reversed(found) if slurm_id in living), "")
        if slurm_id:
            state = living[slurm_id].state.lower()
            cure = f"wait for it, or: mj cancel {shlex.quote(str(jobs[0].run))} {shlex.quote(name)}"
            raise UserError(f"{name}: already submitted, as Slurm job {slurm_id} ({state}); {cure}")


def _ask_slurm(draft: Submission) -> None:
    """UserError in plain words when Slurm would not take the job; nothing is submitted."""
    script = JobExecutor(draft).render()
    done = call_slurm(["sbatch", "--test-only"], given=script)
    if done.returncode != 0:
        raise UserError(_refusal(draft, done.stderr))


def _refusal(draft: Submission, words: str) -> str:
    said = " ".join(
        words.replace("sbatch: error: ", "").replace("allocation failure: ", "").split()
    )
    plain = next((text for key, text in IN_PLAIN_WORDS.items() if key in said), "")
    asked, cluster = draft.job.resources, draft.cluster
    spares = f" (and {asked.spare_nodes} spare)" if asked.spare_nodes else ""
    each = f"{asked.ranks} ranks x {asked.cpus} cpus, {asked.gpus} gpus"
    size = f"{asked.nodes} nodes{spares} x {each}"
    where = f"partition {cluster.partition or 'by default'} of {cluster.name}"
    because = f"{plain} (Slurm: {said})" if plain else f"Slurm: {said}"
    return f"{draft.job.name}: asked for {size}, {asked.hours:g} h in {where}; refused: {because}"


def _print_all(drafts: list[Submission]) -> dict[str, str]:
    """Print what would be submitted, with `<id of JOB>` where Slurm's ids would be."""
    chains: dict[str, list[str]] = {}
    for draft in drafts:
        submission = _after_those_before(draft, chains)
        print(f"# {submission.script}\n{JobExecutor(submission).render()}")
        _submit_chain(submission, chains.setdefault(draft.job.name, []), _print_call)
        print()
    return {name: chain[0] for name, chain in chains.items()}


def _submit_all(drafts: list[Submission]) -> dict[str, str]:
    """Slurm id of each job; when one cannot be submitted the earlier ones are cancelled."""
    chains: dict[str, list[str]] = {}
    for draft in drafts:
        submission = _after_those_before(draft, chains)
        try:
            _submit_chain(submission, chains.setdefault(draft.job.name, []), _submit)
        except BaseException:
            cancel([slurm_id for chain in chains.values() for slurm_id in chain])
            raise
    return {name: chain[0] for name, chain in chains.items()}


def _after_those_before(draft: Submission, chains: dict[str, list[str]]) -> Submission:
    """The job waits for the last of each chain: the work may be done in any of its jobs."""
    return replace(
        draft, after=tuple(chains[name][-1] for name in draft.job.after if name in chains)
    )


def _submit_chain(
    submission: Submission, ids: list[str], submit: Callable[[Submission], str]
) -> None:
    """Submit a job and the successors that are to take it up; `ids` is filled as they come."""
    ids.append(submit(submission))
    if submission.cluster.again == "ahead":
        for _ in range(submission.cluster.successors):
            ids.append(submit(replace(submission, behind=ids[-1])))


def _print_call(submission: Submission) -> str:
    print(f"$ {shlex.join(submission.command())}")
    before = submission.behind.rstrip(">")
    return f"{before}'>" if before else f"<id of {submission.job.name}>"


def _submit(submission: Submission) -> str:
    """Submit a job, or a successor of one, and note its id."""
    slurm_id = _submit_again(submission) if submission.behind else _submit_first(submission)
    _note_id(submission.job.folder, slurm_id, submission.cluster)
    return slurm_id


def _submit_again(submission: Submission) -> str:
    done = call_slurm(submission.command("--parsable"))
    if done.returncode != 0:
        raise UserError(_refusal(submission, done.stderr))
    return done.stdout.strip().partition(";")[0]


def _submit_first(submission: Submission) -> str:
    from submitit.core.utils import FailedJobError

    job = submission.job
    executor = JobExecutor(submission)
    write_job(job.folder, job.description())
    write_cluster(job.folder, submission.cluster)
    note(job.folder, "submit")
    write_text(submission.script, executor.render())
    write_text(job.folder.path / "submit.txt", shlex.join(submission.command()) + "\n")
    try:
        slurm_id: str = executor.submit(run_here, str(job.folder.path)).job_id
    except FailedJobError as error:
        raise UserError(_refusal(submission, str(error))) from error
    return slurm_id


def _note_id(folder: JobFolder, slurm_id: str, cluster: Cluster) -> None:
    ids = [*folder.slurm_ids(), slurm_id]
    write_json(folder.slurm, {"cluster": cluster.name, "ids": ids})
