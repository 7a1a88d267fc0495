"""Which rank makes which part: the next one that is free, so that all end at about the same time.

A claim is an empty file that only one rank can create; files of an earlier start are not looked at.
"""

import os
from pathlib import Path

from megatron_jobs.runtime.files import remove
from megatron_jobs.runtime.rank import Rank

CLAIMS = "start-"
"""Begins the name of the folder of a start's claims."""


class Claims:
    """The claims of one start of a job, as one of its ranks sees them.

    Args:
        home: folder that all ranks share.
    """

    def __init__(self, home: Path, rank: Rank) -> None:
        self.folder = home / f"{CLAIMS}{rank.attempt}"
        self.rank = rank
        self._ended = 0

    def begin(self) -> None:
        """To be called once, before all others."""
        if self.rank.world == 1:  # its starts may have one name
            remove(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def take(self, part: Path) -> bool:
        """Whether `part` is this rank's from now on."""
        return self._create(f"{part.name}.taken")

    def note_made(self, part: Path) -> None:
        """A part that this rank took is whole."""
        self._create(f"{part.name}.made")

    def is_made(self, part: Path) -> bool:
        """Whether a part is whole."""
        return (self.folder / f"{part.name}.made").exists()

    def note_end(self) -> None:
        """This rank takes no more."""
        self._create(f"rank-{self.rank.index}.ended")

    def all_ended(self) -> bool:
        """Whether every rank takes no more: all parts are made."""
        while self._ended < self.rank.world and self._has_ended(self._ended):
            self._ended += 1
        return self._ended == self.rank.world

    def made(self) -> int:
        """How many parts are whole."""
        return sum(name.endswith(".made") for name in os.listdir(self.folder))

    def _has_ended(self, index: int) -> bool:
        return (self.folder / f"rank-{index}.ended").exists()

    def _create(self, name: str) -> bool:
        try:
            os.close(os.open(self.folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True


def remove_claims(home: Path) -> None:
    """Remove those of all starts."""
    for folder in home.glob(f"{CLAIMS}*"):
        remove(folder)
