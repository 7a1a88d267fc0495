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
from megatron_jobs.jobs.plan import Job

BODY = Path(__file__).with_name("batch.sh")


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

    @property
    def script(self) -> Path:
        """Where the batch script is kept."""
        return self.job.folder.path / "sbatch.sh"

    def command(self, *words: str) -> list[str]:
        """The call of sbatch. The folder is no #SBATCH line: its name may hold a line break.

        Nor is what it waits for: a successor submits the same script when that is over.
        """
        if self.after:
            words = (*words, f"--dependency={self.waits}", "--kill-on-invalid-dep=yes")
        return ["sbatch", *words, f"--chdir={self.job.folder.path}", str(self.script)]

    @property
    def waits(self) -> str:
        """In Slurm's words, what must have happened before it starts."""
        return "afterok:" + ":".join(self.after)


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
    if asked.gpus:
        model = f"{cluster.gpu_type}:" if cluster.gpu_type else ""
        prefix = "gpu:" if cluster.gpu_option == "gres" else ""
        more[cluster.gpu_option] = f"{prefix}{model}{asked.gpus}"
    if asked.memory_gb:
        more["mem"] = f"{math.ceil(asked.memory_gb * 1024)}M"
    own = {key.replace("_", "-"): value for key, value in cluster.sbatch.items()}
    return {
        "job_name": slurm_name(submission.job),
        "nodes": asked.nodes,
        "ntasks_per_node": asked.ranks,
        "cpus_per_task": asked.cpus,
        "time": minutes,
        "partition": cluster.partition or None,
        "account": cluster.account or None,
        "qos": cluster.qos or None,
        "wckey": None,
        "signal_delay_s": min(cluster.signal_seconds, minutes * 60 // 4),
        "stderr_to_stdout": True,
        "additional_parameters": more | {k: v for k, v in own.items() if v is not False},
    }


def slurm_name(job: Job) -> str:
    """What squeue shows: run and job, any odd character replaced; only a label."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{job.run.name}.{job.name}")[:64]


def _values(submission: Submission) -> list[str]:
    """Shell lines between the header and batch.sh: every value quoted."""
    asked, cluster = submission.job.resources, submission.cluster
    values = {
        "job": str(submission.job.folder.path),
        "python": submission.python,
        "code": str(submission.code),
        "nodes": str(asked.nodes),
        "ranks": str(asked.ranks),
        "cpus": str(asked.cpus),
        "again": cluster.again,
        "drain_seconds": str(cluster.watch.drain_seconds),
    }
    environment = {"OMP_NUM_THREADS": str(asked.cpus)} | cluster.environment
    lines = ["set -euo pipefail"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    if cluster.setup:  # scripts of modules and conda read variables that are not set
        lines += ["set +u", *cluster.setup, "set -u"]
    lines += [f"{name}={shlex.quote(value)}" for name, value in values.items()]
    return [*lines, f"srun_words=({shlex.join(cluster.srun)})", ""]
