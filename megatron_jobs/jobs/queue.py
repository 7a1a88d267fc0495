"""What Slurm says of jobs: squeue for the living, sacct for history; scancel.

A job that lost a node, was preempted or put back in the queue is not at its end as long as the
controller knows it. Output formats hold for Slurm 20.11 and newer.
"""

import datetime
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from megatron_jobs.errors import MegatronJobsError, UserError
from megatron_jobs.jobs.arrays import array_of, ids_of
from megatron_jobs.jobs.starts import Start, node_names

HELD = frozenset({"REQUEUE_HOLD", "RESV_DEL_HOLD"})
"""States in which a job waits until somebody lets it go."""
COMING_BACK = HELD | {"NODE_FAIL", "PREEMPTED", "REQUEUED", "REQUEUE_FED", "SPECIAL_EXIT"}
"""States after which a job with --requeue waits again."""
STANDING_STILL = frozenset({"SUSPENDED", "STOPPED"})
"""States of a job that has its nodes and does not get on."""
NO_CLUSTER = "Could not establish a configuration source"
NO_ANSWER = "Unable to contact slurm controller"
FILTERS = ("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_")
"""Beginnings of the variables by which people have Slurm show less, or otherwise."""
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
    """Run a command of Slurm, whatever the user has set up for his own eyes.

    Raises: UserError where Slurm is not installed or knows of no cluster; MegatronJobsError when
        the cluster does not answer, as for a while when it is restarted.
    """
    cure = "use a login node of the cluster, or slurm/devcluster/up and the file that it prints"
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, check=False, env=_plain_words()
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{command[0]}: no such command here, Slurm is not installed; {cure}"
        ) from error
    if done.returncode != 0 and NO_CLUSTER in done.stderr:
        raise UserError(f"{command[0]}: Slurm is installed, but knows of no cluster; {cure}")
    if done.returncode != 0 and NO_ANSWER in done.stderr:
        again = "it is down, or being restarted: try again in some minutes"
        raise MegatronJobsError(f"{command[0]}: {NO_ANSWER}; {again}")
    return done


def _plain_words() -> dict[str, str]:
    """Variables with which Slurm shows everything, and times in seconds since 1970."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(FILTERS)}
    # SLURM_BITSTR_LEN: lists of an array's tasks are not cut short
    return kept | {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "%s"}


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
        expected = time_of(start) if state == "PENDING" else None
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
    if command == "sacct" and shutil.which("sacct") is None:
        return  # some login nodes go without it, and squeue still knows the living
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
    start = time_of(began)
    if state == "PENDING" or start is None or nodes in ("", "None assigned"):
        return None  # what a pending job shows is a plan, and may be that of --test-only
    given = dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
    joules = int(energy or given.get("energy") or 0)
    return Start(
        slurm_id=slurm_id,
        state=state,
        submitted=time_of(submitted),
        eligible=time_of(eligible),
        began=start,
        ended=time_of(ended),
        nodes=tuple(node_names(nodes)),
        cpus=int(given.get("cpu", 0)),
        gpus=_gpus(given),
        joules=float(joules) if 0 < joules < NO_VALUE else None,
    )


def _gpus(tres: Mapping[str, str]) -> int:
    """Of all types together, where only the types are accounted; 0 where GPUs are not at all."""
    if "gres/gpu" in tres:
        return int(tres["gres/gpu"])
    return sum(int(count) for name, count in tres.items() if name.startswith("gres/gpu:"))


def time_of(text: str) -> float | None:
    """Seconds since 1970, of that number or of Slurm's local time; None for `N/A` and `Unknown`.

    Times are asked for as numbers, which some versions of some commands do not give.
    """
    if text.isdecimal():
        return float(text)
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
