"""Which process this is among those of its job; the only reader of SLURM_* variables."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of a job. All numbers count from zero."""

    index: int = 0
    """Place among all processes of the job."""
    world: int = 1
    """Processes in the job."""
    local: int = 0
    """Place among the processes of this node."""
    local_world: int = 1
    """Processes of the job on this node."""
    node: int = 0
    nodes: int = 1
    job_id: str = ""
    """Slurm's job id (with the array task, `12_3`); empty outside Slurm."""
    restart: int = 0
    """How often Slurm has put this job back in the queue."""
    host: str = ""
    attempt: str = "alone"
    """Names this start of the job: equal on all its ranks, different at the next start."""

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes what is written once."""
        return self.index == 0


ALONE = Rank()


def read_rank(environment: Mapping[str, str] | None = None) -> Rank:
    """This process's rank, from the variables of Slurm's task; outside one it is alone.

    Ranks forked on this machine are told theirs by `runtime.launch`.
    Source: srun(1), OUTPUT ENVIRONMENT VARIABLES.
    """
    env = os.environ if environment is None else environment
    host = socket.gethostname()
    if "SLURM_PROCID" in env and "SLURM_STEP_ID" in env:
        return _slurm_rank(env, host)
    return Rank(host=host)


def slurm_job_id(environment: Mapping[str, str] | None = None) -> str:
    """Slurm's id of the job that this process belongs to, in a step or script; or nothing."""
    env = os.environ if environment is None else environment
    return env.get("SLURM_JOB_ID", "")


def _slurm_rank(env: Mapping[str, str], host: str) -> Rank:
    array = env.get("SLURM_ARRAY_JOB_ID")
    job_id = f"{array}_{env['SLURM_ARRAY_TASK_ID']}" if array else env["SLURM_JOB_ID"]
    node = int(env["SLURM_NODEID"])
    restart = int(env.get("SLURM_RESTART_COUNT", "0"))
    return Rank(
        index=int(env["SLURM_PROCID"]),
        world=int(env["SLURM_NTASKS"]),
        local=int(env["SLURM_LOCALID"]),
        local_world=tasks_per_node(env["SLURM_TASKS_PER_NODE"])[node],
        node=node,
        nodes=int(env["SLURM_NNODES"]),
        job_id=job_id,
        restart=restart,
        host=host,
        attempt=f"{env['SLURM_JOB_ID']}.{restart}.{env['SLURM_STEP_ID']}",
    )


def tasks_per_node(text: str) -> list[int]:
    """SLURM_TASKS_PER_NODE written out: `2(x3),1` is [2, 2, 2, 1]."""
    counts: list[int] = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or "1")
    return counts
