"""submitit's Slurm executor with a batch script of ours (submitit 1.5.4, pinned: private hooks).

submitit renders the #SBATCH lines, calls sbatch and reads the id. The rest of the script, what runs
and how it ends, is batch.sh. Imports submitit: import this module only where it is needed.
"""

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor

from megatron_jobs.jobs.cluster import Cluster
from megatron_jobs.jobs.fabric import fabric_environment, fabric_srun_words
from megatron_jobs.jobs.folder import GROUP, TASKS, log_pattern
from megatron_jobs.jobs.notify import mail_words
from megatron_jobs.jobs.plan import Job
from megatron_jobs.jobs.preflight import check_words
from megatron_jobs.jobs.software import launch_words
from megatron_jobs.jobs.tasks import Part

BODY = Path(__file__).with_name("batch.sh")
OF_GPUS = re.compile(r"(--)?(gpus?|gres=gpu|(cpus|mem|ntasks)-per-gpu)\b")
"""Words of sbatch and srun that a job without GPUs is not given."""


@dataclass(frozen=True, slots=True)
class Submission:
    """All that decides a job's batch script."""

    job: Job
    cluster: Cluster
    code: Path
    """Folder that holds the package as it is submitted."""
    python: str
    after: tuple[str, ...] = ()
    """Slurm ids of the jobs that must end well first."""
    leave_out: tuple[str, ...] = ()
    """Nodes on the strike list."""
    behind: str = ""
    """Slurm id of the job that must have ended first, well or not."""
    successor: int = 0
    """Above 0: it takes up the work of the job that it stands behind (`again: ahead`)."""
    part: Part | None = None
    """The tasks of the job that this array is; None: the job itself, or the gather of its tasks."""
    place: int = 0
    """Its place among the arrays of its job, and the job itself after them."""

    @property
    def label(self) -> str:
        """What people call it."""
        if not self.job.gathers:
            return self.job.name
        return f"{self.job.name}, {'each task' if self.part else 'the gather of its tasks'}"

    @property
    def script(self) -> Path:
        """Where the batch script is kept."""
        if self.part is None:
            return self.job.folder.path / "sbatch.sh"
        return self.job.folder.path / TASKS / f"sbatch-{self.place}.sh"

    def command(self, *words: str) -> list[str]:
        """The call of sbatch. The folder is no #SBATCH line: its name may hold a line break.

        Nor is what it waits for: a successor submits the same script when that is over.
        """
        waits = [f"afterok:{':'.join(self.after)}"] if self.after else []
        waits += [f"afterany:{self.behind}"] if self.behind else []
        if waits:
            words = (*words, f"--dependency={','.join(waits)}", "--kill-on-invalid-dep=yes")
        return ["sbatch", *words, f"--chdir={self.script.parent}", str(self.script)]


class JobExecutor(SlurmExecutor):  # type: ignore[misc] # submitit is untyped to mypy
    """Submits one job."""

    def __init__(self, submission: Submission) -> None:
        super().__init__(submission.job.folder.path / "submitit")
        self.submission = submission
        self.update_parameters(**_parameters(submission))

    @classmethod
    def affinity(cls) -> int:
        """Above zero: a script can be rendered where there is no Slurm."""
        return 2

    def render(self) -> str:
        """The whole batch script."""
        return self._make_submission_file_text("true", "")

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        rendered = super()._make_submission_file_text(command, uid)
        header = [line for line in rendered.splitlines() if line.startswith("#SBATCH")]
        return "\n".join(["#!/bin/bash", *header, "", *_values(self.submission), BODY.read_text()])

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return self.submission.command()


def _parameters(submission: Submission) -> dict[str, Any]:
    """What the job asks for, in submitit's words; what it has no word for in Slurm's."""
    asked, cluster = submission.job.resources, submission.cluster
    minutes = max(1, math.ceil(asked.hours * 60))
    more: dict[str, Any] = {"output": "logs/batch.log", "requeue": True}
    if submission.part is not None:  # each task makes its own folder and log
        more |= {"array": submission.part.array, "output": "/dev/null"}
    if asked.gpus:
        model = f"{cluster.gpu_type}:" if cluster.gpu_type else ""
        prefix = "gpu:" if cluster.gpu_option == "gres" else ""
        more[cluster.gpu_option] = f"{prefix}{model}{asked.gpus}"
    if asked.memory_gb:
        more["mem"] = f"{math.ceil(asked.memory_gb * 1024)}M"
    own = {key.replace("_", "-"): value for key, value in cluster.sbatch.items()}
    if not asked.gpus:
        own = {key: value for key, value in own.items() if not OF_GPUS.match(f"{key}={value}")}
    left_out = [str(own.pop("exclude", "") or ""), *submission.leave_out]
    if any(left_out):
        own["exclude"] = ",".join(filter(None, left_out))
    return {
        "job_name": slurm_name(submission),
        "nodes": asked.nodes + asked.spare_nodes,
        "ntasks_per_node": asked.ranks,
        "cpus_per_task": asked.cpus,
        "time": minutes,
        "partition": partition_of(submission.job, cluster) or None,
        "account": cluster.account or None,
        "qos": cluster.qos or None,
        "wckey": None,
        "signal_delay_s": min(cluster.signal_seconds, minutes * 60 // 4),
        "stderr_to_stdout": True,
        "additional_parameters": more
        | mail_words(cluster.notify)
        | {k: v for k, v in own.items() if v is not False},
    }


def partition_of(job: Job, cluster: Cluster) -> str:
    """Where the job goes; empty for Slurm's default."""
    return cluster.partition if job.resources.gpus else cluster.cpu_partition or cluster.partition


def slurm_name(submission: Submission) -> str:
    """What squeue shows: run and job, any odd character replaced; only a label."""
    job = submission.job
    ending = ".gather" if job.gathers and submission.part is None else ""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{job.run.name}.{job.name}")[:57] + ending


def _values(submission: Submission) -> list[str]:
    """Shell lines between the header and batch.sh: every value quoted."""
    asked, cluster = submission.job.resources, submission.cluster
    values = {
        "script": str(submission.script),
        "python": submission.python,
        "code": str(submission.code),
        "nodes": str(asked.nodes),
        "ranks": str(asked.ranks),
        "cpus": str(asked.cpus),
        "rank_log": log_pattern(asked.nodes),
        "again": cluster.again,
        "excluded": str(cluster.sbatch.get("exclude") or ""),
        "drain_seconds": str(cluster.watch.drain_seconds),
        "check_nodes": str(int(cluster.preflight.nodes)),
        "try_links": str(int(cluster.preflight.links)),
        "preflight_seconds": str(cluster.preflight.seconds),
    }
    launch = launch_words(cluster, submission.job, code=submission.code)
    fabric = fabric_srun_words(cluster.fabric, gpus=asked.gpus)
    own = tuple(word for word in cluster.srun if asked.gpus or not OF_GPUS.match(word))
    arrays = {
        "srun_words": fabric + own,
        "container_words": launch.srun,
        "rank_words": launch.rank,
        "control_words": launch.control,
        "check_words": check_words(cluster, asked),
    }
    environment = _environment(submission, (*cluster.setup, *launch.setup))
    lines = ["set -euo pipefail", *_own_folder(submission), *environment]
    if submission.part is None:
        values = {"job": str(submission.job.folder.path)} | values
    lines += [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    return [*lines, *(f"{name}=({shlex.join(words)})" for name, words in arrays.items()), ""]


def _own_folder(submission: Submission) -> list[str]:
    """A task makes its folder and goes there, before anything else: all that is said is logged."""
    if submission.part is None:
        return []
    whole = shlex.quote(str(submission.job.folder.path))
    return [
        f"task=$(({submission.part.offset} + SLURM_ARRAY_TASK_ID))",
        f"first=$((task / {GROUP} * {GROUP}))",
        f"job={whole}/{TASKS}/$first-$((first + {GROUP - 1}))/$task",
        'mkdir -p "$job/logs"',
        'cd "$job"',
        "exec >>logs/batch.log 2>&1",
    ]


def _environment(submission: Submission, setup: tuple[str, ...]) -> list[str]:
    """Exports and setup lines; the profile's variables stand whatever a module does to them."""
    asked, cluster = submission.job.resources, submission.cluster
    fabric = fabric_environment(cluster.fabric, nodes=asked.nodes, gpus=asked.gpus)
    lines = [
        f"export {name}={shlex.quote(value)} # {reason}"
        for name, (value, reason) in fabric.items()
        if name not in cluster.environment
    ]
    lines.append(f"export OMP_NUM_THREADS={asked.cpus}")
    own = [f"export {name}={shlex.quote(value)}" for name, value in cluster.environment.items()]
    if not setup:
        return lines + own
    # scripts of modules and conda read variables that are not set
    return [*lines, *own, "set +u", *setup, "set -u", *own]
