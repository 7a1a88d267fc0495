"""Jobs that are cut into tasks: their lists for Slurm's arrays, and what has become of each task.

A task is known by its number, from 0. In an array it has an index, below Slurm's MaxArraySize:
number = offset of the array + index, and Slurm's id of it is ARRAY_INDEX.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_jobs.errors import EXIT_DONE, EXIT_STOPPED, DataError
from megatron_jobs.jobs.arrays import array_of, short_list
from megatron_jobs.jobs.folder import GROUP, RECEIPTS, TASKS, JobFolder, group_of, read_job
from megatron_jobs.jobs.logs import last_stop
from megatron_jobs.jobs.plan import Job
from megatron_jobs.jobs.queue import COMING_BACK, SlurmState
from megatron_jobs.jobs.receipt import missing_tasks, read_receipt
from megatron_jobs.runtime.files import read_json

STATES = ("waiting", "running", "done", "failed", "cancelled", "stopped", "interrupted", "unknown")
"""Of a task, in the order in which they are shown."""
NAMED = 8
"""How many tasks that did not end well are named."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some tasks of a job, to be submitted as one array."""

    tasks: tuple[int, ...]
    """Their numbers."""
    at_once: int = 0
    """How many of them may run at one time; 0: any number."""
    after: int = -1
    """The place of the part that must have ended before; -1: none."""

    @property
    def offset(self) -> int:
        """The task that index 0 stands for."""
        return self.tasks[0]

    @property
    def indexes(self) -> str:
        """Their places in the array, as Slurm writes them."""
        return short_list(task - self.offset for task in self.tasks)

    @property
    def array(self) -> str:
        """What sbatch's --array is given."""
        return self.indexes + (f"%{self.at_once}" if self.at_once else "")


def deal_out(tasks: Sequence[int], *, size: int, at_once: int) -> list[Part]:
    """Tasks as arrays whose indexes are below `size`; together no more run than `at_once` allows.

    Each array gets a share of `at_once` by its number of tasks. When there are more arrays than may
    run tasks, they stand in that many rows, and each waits for the one before it in its row.

    Args:
        tasks: numbers, rising.
        size: Slurm's MaxArraySize.
        at_once: 0: any number.
    """
    parts: list[Part] = []
    for task in tasks:
        if parts and task - parts[-1].offset < size:
            parts[-1] = replace(parts[-1], tasks=(*parts[-1].tasks, task))
        else:
            parts.append(Part((task,)))
    if not at_once or not parts:
        return parts
    rows = min(len(parts), at_once)
    loads = [sum(len(part.tasks) for part in parts[row::rows]) for row in range(rows)]
    given = shares(at_once, loads)
    return [
        replace(part, at_once=given[place % rows], after=place - rows if place >= rows else -1)
        for place, part in enumerate(parts)
    ]


def shares(total: int, loads: Sequence[int]) -> list[int]:
    """`total` dealt out by load, at least 1 to each."""
    rest = total - len(loads)
    given = [1 + rest * load // sum(loads) for load in loads]
    given[loads.index(max(loads))] += total - sum(given)
    return given


def require_tasks(job: Job) -> None:
    """DataError when tasks of the job have not ended well: there is nothing yet to gather."""
    missing = missing_tasks(job)
    if missing:
        named = name_some(missing)
        raise DataError(f"{job.name}: {named} left no receipt that holds; submit the job again")


def name_some(tasks: Sequence[int]) -> str:
    """`tasks 3, 17, 99, ...` of a list that may be long."""
    more = ", ..." if len(tasks) > NAMED else ""
    plural = "s" if len(tasks) > 1 else ""
    return f"task{plural} {', '.join(map(str, tasks[:NAMED]))}{more}"


def task_states(
    folder: JobFolder, states: Mapping[str, SlurmState], *, here: bool, held: bool
) -> dict[str, list[int]]:
    """The tasks of a job by what has become of them: one of STATES -> their numbers.

    Which receipts are there is seen from the names in a few folders: none is read unless Slurm
    contradicts it.

    Args:
        states: by Slurm's ids, also of the tasks.
        here: whether the job was last run on this machine, without Slurm.
        held: whether such a run goes on now.
    """
    count = int(read_job(folder)["resources"]["tasks"])
    done, begun = _names_in_groups(folder, count)
    slurm = {} if here else _slurm_states_of(folder, states)
    found: dict[str, list[int]] = {name: [] for name in STATES}
    for task in range(count):
        state = slurm.get(task)
        if state is not None and not (task in done and state.state == "COMPLETED"):
            word = _word_of(folder.of_task(task), state, done=task in done)
        elif task in done:
            word = "done"
        elif here:
            word = _local_word(folder.of_task(task), held=held) if task in begun else "waiting"
        else:
            word = "unknown"
        found[word].append(task)
    return {name: tasks for name, tasks in found.items() if tasks}


def in_words(found: Mapping[str, Sequence[int]]) -> str:
    """`waiting 120, running 40, done 4830, failed 10 (tasks 17, 99, ...)`."""
    texts = []
    for state in STATES:
        tasks = found.get(state, ())
        named = f" ({name_some(tasks)})" if state in ("failed", "cancelled") and tasks else ""
        texts += [f"{state} {len(tasks)}{named}"] if tasks else []
    return ", ".join(texts)


def overall(found: Mapping[str, Sequence[int]], *, here: bool = False) -> str:
    """The state of a job whose gather has not begun; nothing when every task is done.

    Args:
        here: it ran on this machine and has ended: tasks that wait do so for nothing.
    """
    ended = ("failed", "cancelled", "stopped", "interrupted", "unknown")
    order = (*ended, "waiting") if here else ("running", "waiting", *ended)
    return next((state for state in order if found.get(state)), "")


def waits_for(folder: JobFolder, states: Mapping[str, SlurmState]) -> str:
    """Slurm's reason why the first of the tasks that wait does so."""
    tasks = _slurm_states_of(folder, states)
    return next((tasks[task].reason for task in sorted(tasks) if tasks[task].living), "")


def _names_in_groups(folder: JobFolder, count: int) -> tuple[set[int], set[int]]:
    """Tasks that have a receipt, and those that have a folder."""
    done: set[int] = set()
    begun: set[int] = set()
    for first in range(0, count, GROUP):
        group = folder.path / TASKS / group_of(first)
        begun.update(int(name) for name in _names(group) if name.isdecimal())
        names = (name.partition(".") for name in _names(group / RECEIPTS))
        done.update(int(task) for task, _, ending in names if ending == "json")
    return done, begun


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _slurm_states_of(folder: JobFolder, states: Mapping[str, SlurmState]) -> dict[int, SlurmState]:
    """The newest that Slurm says of each task."""
    arrays = folder.slurm_arrays()
    places = {array: place for place, array in enumerate(arrays)}
    mine = [
        (places[array_of(slurm_id)], slurm_id, state)
        for slurm_id, state in states.items()
        if array_of(slurm_id) in places and "_" in slurm_id
    ]
    newest: dict[int, SlurmState] = {}
    for _, slurm_id, state in sorted(mine, key=lambda found: found[0]):
        array, _, index = slurm_id.partition("_")
        newest[arrays[array][int(index)]] = state
    return newest


def _word_of(folder: JobFolder, slurm: SlurmState, *, done: bool) -> str:
    """The state of a task that Slurm knows, one of STATES."""
    if slurm.living:
        pending = slurm.state == "PENDING" or slurm.state in COMING_BACK
        return "waiting" if pending else "running"
    if done and _is_newer(folder):
        return "done"
    if slurm.state == "CANCELLED":
        return "cancelled"
    return "stopped" if last_stop(folder) else "failed"


def _is_newer(folder: JobFolder) -> bool:
    """Whether a task's receipt was written by the newest submission."""
    receipt = read_receipt(folder) or {"slurm_job_ids": []}
    arrays = JobFolder(folder.whole).slurm_arrays()
    return any(array_of(slurm_id) in arrays for slurm_id in receipt["slurm_job_ids"])


def _local_word(folder: JobFolder, *, held: bool) -> str:
    """The state of a task without receipt that was begun on this machine."""
    if not folder.outcome.exists():
        return "running" if held else "interrupted"
    status = read_json(folder.outcome)["status"]
    if status == EXIT_STOPPED:
        return "stopped"
    if status != EXIT_DONE:
        return "failed"
    return "running" if held else "interrupted"  # all but its receipt
