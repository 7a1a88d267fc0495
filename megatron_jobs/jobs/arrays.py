"""Slurm's notation for array tasks: the list `3,7,9-12` and the ids `123_7`, `123_[3,9-12%2]`.

Source: sbatch(1), --array; squeue(1), --array.
"""

import itertools
import re
from collections.abc import Iterable

PENDING_TASKS = re.compile(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]")
"""How squeue and sacct name the tasks of an array that wait together."""


def short_list(numbers: Iterable[int]) -> str:
    """Rising numbers as an index list: runs of two or more as FIRST-LAST."""
    runs = itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    texts = []
    for _, run in runs:
        members = [number for _, number in run]
        first, last = members[0], members[-1]
        texts.append(str(first) if first == last else f"{first}-{last}")
    return ",".join(texts)


def read_list(text: str) -> list[int]:
    """The numbers of an index list."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def ids_of(shown: str) -> list[str]:
    """Each Slurm id that one line of squeue or sacct is about."""
    found = PENDING_TASKS.fullmatch(shown)
    if not found:
        return [shown]
    return [f"{found[1]}_{index}" for index in read_list(found[2])]


def array_of(slurm_id: str) -> str:
    """The array that a task belongs to; any other id as it is."""
    return slurm_id.partition("_")[0]
