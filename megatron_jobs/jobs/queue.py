"""What Slurm says of jobs: squeue for the living, sacct for history; scancel.

A job that lost a node, was preempted or put back in the queue is not at its end as long as the
controller knows it. Output formats hold for Slurm 20.11 and newer.
"""

import datetime
import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from megatron_jobs.errors import MegatronJobsError, UserError
from megatron_jobs.jobs.arrays import array_of, ids_of
from megatron_jobs.jobs.starts import Start, node_names

COMING_BACK = frozenset({"NODE_FAIL", "PREEMPTED", "REQUEUED", "REQUEUE_FED", "SPECIAL_EXIT"})
"""States after which a job with --requeue waits again."""
NO_ANSWER = ("Could not establish a configuration source", "Unable to contact slurm controller")
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "TIMEOUT"}
)
LONGEST_WORD = 100_000
"""Characters of ids in one call; Linux takes 131,072 in one word of a command."""
FIELDS = "JobID,State,ElapsedRaw,Submit,Eligible,Start,End,NodeList,AllocTRES,ConsumedEnergyRaw"
NO_VALUE = 2**63
"""Slurm's words for no number, as energy, are above this."""


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
    expected: float | None = None
    """When Slurm means to start it, in seconds since 1970, if it has worked that out."""
    starts: tuple[Start, ...] = ()
    """Each time that it ran, as the accounting has it."""


def call_slurm(command: list[str], *, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm; UserError when there is none here, or no cluster answers."""
    cure = "use a login node of the cluster, or slurm/devcluster/up and the file that it prints"
    whole_lists = os.environ | {"SLURM_BITSTR_LEN": "0"}  # of an array's tasks, not cut short
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, env=whole_lists
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{command[0]}: no such command here, Slurm is not installed; {cure}"
        ) from error
    if done.returncode != 0 and any(words in done.stderr for words in NO_ANSWER):
        raise UserError(f"{command[0]}: Slurm is installed, but no cluster answers; {cure}")
    return done


def slurm_states(ids: Sequence[str]) -> dict[str, SlurmState]:
    """The state of each Slurm job that the controller or the accounting knows.

    One call of squeue and one of sacct, however many jobs (up to some 10,000).
    """
    if not ids:
        return {}
    known = _history(ids)
    for slurm_id, current in _controller_states(ids).items():
        before = known.get(slurm_id, current)
        known[slurm_id] = replace(current, restarts=before.restarts, starts=before.starts)
    return known


def live_states(ids: Sequence[str]) -> dict[str, SlurmState]:
    """The jobs among `ids` that wait, run or will run again; arrays of which a task does."""
    found = _controller_states(ids) if ids else {}
    return {array_of(slurm_id): state for slurm_id, state in found.items() if state.living}


def cancel(ids: Sequence[str]) -> None:
    """Cancel Slurm jobs; those that have ended are left alone."""
    if not ids:
        return
    done = call_slurm(["scancel", *ids])
    if done.returncode != 0:
        raise MegatronJobsError(f"scancel {' '.join(ids)}: {done.stderr.strip()}")


def _controller_states(ids: Sequence[str]) -> dict[str, SlurmState]:
    """What slurmctld knows: every living job, and for some minutes those that ended."""
    states: dict[str, SlurmState] = {}
    for line in _lines_of("squeue", "--states=all", "--format=%i|%T|%M|%S|%r", ids=ids):
        slurm_id, state, used, start, reason = line.split("|", 4)
        living = state not in ENDED
        expected = _time(start) if state == "PENDING" else None
        found = SlurmState(state, reason, _seconds(used), living=living, expected=expected)
        states |= dict.fromkeys(ids_of(slurm_id), found)
    return states


def _history(ids: Sequence[str]) -> dict[str, SlurmState]:
    """The last start of each job in the accounting, with the number of those before it."""
    words = ("--duplicates", "--allocations", "--parsable2", f"--format={FIELDS}")
    states: dict[str, SlurmState] = {}
    for line in _lines_of("sacct", *words, ids=ids):
        slurm_id, state, elapsed, *rest = line.split("|")
        word = state.split()[0]  # CANCELLED by 1000
        if "[" in slurm_id:  # tasks of an array that never began
            states |= dict.fromkeys(ids_of(slurm_id), SlurmState(word))
            continue
        before = states.get(slurm_id)
        start = _start_of(slurm_id, word, rest)
        starts = (before.starts if before else ()) + ((start,) if start else ())
        restarts = before.restarts + 1 if before else 0
        states[slurm_id] = SlurmState(word, "", int(elapsed or 0), restarts, starts=starts)
    return states


def _lines_of(command: str, *words: str, ids: Sequence[str]) -> Iterator[str]:
    """What a command prints of some jobs; nothing when it has forgotten them, or has no history.

    Raises: MegatronJobsError when squeue refuses for another reason.
    """
    for part in _parts(ids):
        done = call_slurm([command, "--noheader", *words, f"--jobs={','.join(part)}"])
        # squeue says so of a single id, forgotten since; sacct fails where there is no accounting
        excused = command == "sacct" or "Invalid job id" in done.stderr
        if done.returncode != 0 and not excused:
            raise MegatronJobsError(f"{command}: {done.stderr.strip()}")
        if done.returncode == 0:
            yield from done.stdout.splitlines()


def _parts(ids: Sequence[str]) -> Iterator[list[str]]:
    """The ids, as many at a time as one word of a command may hold."""
    lengths = itertools.accumulate(len(slurm_id) + 1 for slurm_id in ids)
    numbered = zip(lengths, ids, strict=True)
    for _, group in itertools.groupby(numbered, key=lambda pair: pair[0] // LONGEST_WORD):
        yield [slurm_id for _, slurm_id in group]


def _start_of(slurm_id: str, state: str, fields: list[str]) -> Start | None:
    """One line of the accounting; None for one that never came to run."""
    submitted, eligible, began, ended, nodes, tres, energy = fields
    start = _time(began)
    if state == "PENDING" or start is None or nodes in ("", "None assigned"):
        return None  # what a pending job shows is a plan, and may be that of --test-only
    given = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
    joules = int(energy or given.get("energy") or 0)
    return Start(
        slurm_id=slurm_id,
        state=state,
        submitted=_time(submitted),
        eligible=_time(eligible),
        began=start,
        ended=_time(ended),
        nodes=tuple(node_names(nodes)),
        cpus=int(given.get("cpu", 0)),
        gpus=int(given.get("gres/gpu", 0)),
        joules=float(joules) if 0 < joules < NO_VALUE else None,
    )


def _time(text: str) -> float | None:
    """Seconds since 1970 of Slurm's local time; None for `N/A` and `Unknown`."""
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _seconds(clock: str) -> int:
    """Seconds of [days-][hours:]minutes:seconds; 0 for Slurm's INVALID."""
    days, _, rest = clock.rpartition("-")
    if not rest.replace(":", "").isdecimal():
        return 0
    total = 0
    for part in rest.split(":"):
        total = total * 60 + int(part)
    return total + int(days or 0) * 86400
