"""Which process this is among those of its job; the only reader of SLURM_* variables."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

NODE_NAME = "SLURMD_NODENAME"


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
    task: int = 0
    """Which part of the work, of a job that is cut into tasks, each with ranks of its own."""
    tasks: int = 1
    job_id: str = ""
    """Slurm's job id (with the array task, `12_3`); empty outside Slurm."""
    restart: int = 0
    """How often Slurm has put this job back in the queue."""
    host: str = ""
    """What the node calls itself: to connect to it, and for files on it."""
    slurm_node: str = ""
    """What Slurm calls it, which may be another name; empty outside Slurm."""
    attempt: str = "alone"
    """Names this start of the job: equal on all its ranks, different at the next start."""

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes what is written once."""
        return self.index == 0

    @property
    def node_name(self) -> str:
        """The node's name wherever it is told: Slurm's, which commands of Slurm take."""
        return self.slurm_node or self.host

    @property
    def start(self) -> str:
        """Names this start of the job in all its steps, not only that of the ranks."""
        return ".".join(self.attempt.split(".")[:2])


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
    return Rank(host=host, slurm_node=env.get(NODE_NAME, ""))


def slurm_job_id(environment: Mapping[str, str] | None = None) -> str:
    """Slurm's id of the job of this process, `12_3` for an array's task, or nothing."""
    env = os.environ if environment is None else environment
    array = env.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{env['SLURM_ARRAY_TASK_ID']}" if array else env.get("SLURM_JOB_ID", "")


def slurm_nodes(environment: Mapping[str, str] | None = None) -> str:
    """The nodes of this process's Slurm job in Slurm's short form, `node[1-4]`; or nothing."""
    env = os.environ if environment is None else environment
    return env.get("SLURM_JOB_NODELIST", "")


def slurm_restart(environment: Mapping[str, str] | None = None) -> int:
    """How often Slurm has put this process's job back in the queue."""
    env = os.environ if environment is None else environment
    return int(env.get("SLURM_RESTART_COUNT", "0"))


def _slurm_rank(env: Mapping[str, str], host: str) -> Rank:
    node = int(env["SLURM_NODEID"])
    restart = slurm_restart(env)
    return Rank(
        index=int(env["SLURM_PROCID"]),
        world=int(env["SLURM_NTASKS"]),
        local=int(env["SLURM_LOCALID"]),
        local_world=tasks_per_node(env["SLURM_TASKS_PER_NODE"])[node],
        node=node,
        nodes=int(env["SLURM_NNODES"]),
        job_id=slurm_job_id(env),
        restart=restart,
        host=host,
        slurm_node=env.get(NODE_NAME, ""),
        attempt=f"{env['SLURM_JOB_ID']}.{restart}.{env['SLURM_STEP_ID']}",
    )


def tasks_per_node(text: str) -> list[int]:
    """SLURM_TASKS_PER_NODE written out: `2(x3),1` is [2, 2, 2, 1]."""
    counts: list[int] = []
    for part in text.split(","):
        count, _, times = part.partition("(x")
        counts += [int(count)] * int(times.rstrip(")") or "1")
    return counts
