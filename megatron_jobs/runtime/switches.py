"""Switches: files that people make in a job's folder, and that a running job looks for.

KILL   save and stop; while it is there the job is not begun again
SAVE   save now and go on; removed when it is done
"""

from enum import IntEnum
from pathlib import Path

KILL = "KILL"
SAVE = "SAVE"


class Wish(IntEnum):
    """What a job is asked for; of several wishes the largest includes the others."""

    NOTHING = 0
    SAVE = 1
    STOP = 2
    """After saving."""


def wish_of_people(folder: Path) -> Wish:
    """What the switches in a job's folder ask for; two questions to the file system."""
    if (folder / KILL).exists():
        return Wish.STOP
    return Wish.SAVE if (folder / SAVE).exists() else Wish.NOTHING


def forget_save(folder: Path) -> None:
    """Remove the switch SAVE: it is done."""
    (folder / SAVE).unlink(missing_ok=True)
