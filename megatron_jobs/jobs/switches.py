"""Saving and stopping a job of a run by hand; see `runtime.switches`."""

import shlex
from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.folder import JobFolder, read_job
from megatron_jobs.jobs.inquiry import job_of
from megatron_jobs.jobs.queue import call_slurm, live_states
from megatron_jobs.jobs.status import goes_on, read_jobs
from megatron_jobs.stages import load_stage


def ask_to_save(run: Path, job: str) -> JobFolder:
    """Make the switch SAVE of a job that waits or runs.

    Raises: UserError when there is no such job, it is over, or its stage has nothing to save.
    """
    folder = job_of(run, job)
    stage = str(read_job(folder)["stage"])
    if not getattr(load_stage(stage), "SAVES", False):
        raise UserError(f"{job}: its stage, {stage}, does not save before its end")
    if not goes_on(run, job):
        raise UserError(f"{job}: neither waits nor runs; see: mj status {shlex.quote(str(run))}")
    folder.save_switch.touch()
    return folder


def ask_to_stop(run: Path, job: str) -> tuple[JobFolder, list[str]]:
    """Make the switch KILL of a job, and have Slurm warn its ranks: not every stage looks for it.

    Returns: its folder; the Slurm jobs that were warned.
    Raises: UserError when there is no such job.
    """
    folder = job_of(run, job)
    folder.kill_switch.touch()
    ids = folder.slurm_ids()
    living = live_states(ids) if ids else {}
    if living:  # --state: whatever the signal, a job that waits would be cancelled by it
        call_slurm(["scancel", "--signal=USR2", "--state=RUNNING", *living])
    return folder, [i for i in ids if i in living and living[i].state == "RUNNING"]


def jobs_behind(run: Path, job: str) -> list[str]:
    """The jobs of a run without a receipt that will not begin if `job` does not come to its end."""
    behind: list[str] = []
    for name, description in read_jobs(run).items():  # each after those that it waits for
        if {job, *behind} & {*description["after"]} and not JobFolder(run / name).receipt.exists():
            behind.append(name)
    return behind
