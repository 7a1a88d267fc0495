"""What Slurm says of jobs: squeue for the living, sacct for history; scancel.

A job that lost a node, was preempted or put back in the queue is not at its end as long as the
controller knows it. Output formats hold for Slurm 20.11 and newer.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_jobs.errors import MegatronJobsError, UserError

COMING_BACK = frozenset({"NODE_FAIL", "PREEMPTED", "REQUEUED", "REQUEUE_FED", "SPECIAL_EXIT"})
"""States after which a job with --requeue waits again."""
NO_ANSWER = ("Could not establish a configuration source", "Unable to contact slurm controller")
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT"}
)


@dataclass(frozen=True, slots=True)
class SlurmState:
    """One Slurm job, as Slurm sees it now."""

    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETED, ..."""
    reason: str = ""
    """Why it is pending, in Slurm's word."""
    seconds: int = 0
    """Of its last start."""
    restarts: int = 0
    living: bool = False
    """Whether it waits, runs, or will run again."""


def call_slurm(command: list[str], *, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm; UserError when there is none here, or no cluster answers."""
    cure = "use a login node of the cluster, or slurm/devcluster/up and the file that it prints"
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(
            f"{command[0]}: no such command here, Slurm is not installed; {cure}"
        ) from error
    if done.returncode != 0 and any(words in done.stderr for words in NO_ANSWER):
        raise UserError(f"{command[0]}: Slurm is installed, but no cluster answers; {cure}")
    return done


def slurm_states(ids: Sequence[str]) -> dict[str, SlurmState]:
    """The state of each Slurm job that the controller or the accounting knows."""
    if not ids:
        return {}
    known = _history(ids)
    for slurm_id, current in _controller_states(ids).items():
        restarts = known[slurm_id].restarts if slurm_id in known else 0
        known[slurm_id] = SlurmState(
            current.state, current.reason, current.seconds, restarts, current.living
        )
    return known


def live_states(ids: Sequence[str]) -> dict[str, SlurmState]:
    """The jobs among `ids` that wait, run or will run again."""
    found = _controller_states(ids) if ids else {}
    return {slurm_id: state for slurm_id, state in found.items() if state.living}


def cancel(ids: Sequence[str]) -> None:
    """Cancel Slurm jobs; those that have ended are left alone."""
    if not ids:
        return
    done = call_slurm(["scancel", *ids])
    if done.returncode != 0:
        raise MegatronJobsError(f"scancel {' '.join(ids)}: {done.stderr.strip()}")


def _controller_states(ids: Sequence[str]) -> dict[str, SlurmState]:
    """What slurmctld knows: every living job, and for some minutes those that ended."""
    asked = ["--noheader", "--states=all", f"--jobs={','.join(ids)}", "--format=%i|%T|%r|%M"]
    done = call_slurm(["squeue", *asked])
    if "Invalid job id" in done.stderr:  # it said so of a single id, forgotten since
        return {}
    if done.returncode != 0:
        raise MegatronJobsError(f"squeue: {done.stderr.strip()}")
    states: dict[str, SlurmState] = {}
    for line in done.stdout.splitlines():
        slurm_id, state, reason, used = line.split("|")
        states[slurm_id] = SlurmState(state, reason, _seconds(used), living=state not in ENDED)
    return states


def _history(ids: Sequence[str]) -> dict[str, SlurmState]:
    """The last start of each job in the accounting, with the number of those before it."""
    fields = "--format=JobIDRaw,State,ElapsedRaw"
    asked = ["--duplicates", "--allocations", "--noheader", "--parsable2", fields]
    done = call_slurm(["sacct", *asked, f"--jobs={','.join(ids)}"])
    if done.returncode != 0:  # a cluster without accounting: the controller must do
        return {}
    states: dict[str, SlurmState] = {}
    for line in done.stdout.splitlines():
        slurm_id, state, elapsed = line.split("|")
        restarts = states[slurm_id].restarts + 1 if slurm_id in states else 0
        word = state.split()[0]  # CANCELLED by 1000
        states[slurm_id] = SlurmState(word, "", int(elapsed or 0), restarts)
    return states


def _seconds(clock: str) -> int:
    """Seconds of [days-][hours:]minutes:seconds; 0 for Slurm's INVALID."""
    days, _, rest = clock.rpartition("-")
    if not rest.replace(":", "").isdecimal():
        return 0
    total = 0
    for part in rest.split(":"):
        total = total * 60 + int(part)
    return total + int(days or 0) * 86400
