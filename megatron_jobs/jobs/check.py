"""One thing that `mj doctor` looked at."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and for what is wrong the cure."""

    state: State
    what: str
    found: str
    cure: str = ""

    @property
    def fails(self) -> bool:
        return self.state == "FAIL"

    def line(self) -> str:
        """The one line that people see."""
        return f"{self.state:<5} {self.what}: {self.found}" + (
            f"; {self.cure}" if self.cure else ""
        )


def good(what: str, found: str) -> Check:
    return Check("ok", what, found)


def bad(what: str, found: str, cure: str) -> Check:
    return Check("FAIL", what, found, cure)


def remark(what: str, found: str, cure: str = "") -> Check:
    """Nothing that keeps a job from running, but worth knowing."""
    return Check("note", what, found, cure)


def judge(wrong: str, what: str, found: str, cure: str) -> Check:
    """`bad` with what is wrong, or `good` with what was found when nothing is."""
    return bad(what, wrong, cure) if wrong else good(what, found)


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the first above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def cannot_write(path: Path) -> str:
    """Why a file or folder could not be made or added to; nothing when it could."""
    if path.exists():
        return "" if os.access(path, os.W_OK) else f"{path} cannot be written to"
    folder = nearest_folder(path)
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written to"
