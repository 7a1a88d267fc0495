"""Which checkpoints a folder holds, and what they say of themselves, for those without torch.

ROOT/latest           the name of the newest whole checkpoint
ROOT/step-00000100/   one of them, with its manifest.json: see `checkpoint.manifest`
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import read_json

NAME = "manifest.json"
LATEST = "latest"
LOADED = "loaded.json"
"""In the folder of a job that goes on from the checkpoint of another one: which, at what step."""
STEP_FOLDER = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class SavedStep:
    """A whole checkpoint; its files are not looked at."""

    folder: Path
    step: int
    record: dict[str, Any]
    """What the training that saved it noted: model, batch, samples, index."""


def latest_checkpoint(root: Path) -> Path | None:
    """The newest whole checkpoint below `root`, or None."""
    try:
        name = (root / LATEST).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    if not STEP_FOLDER.fullmatch(name) or not (root / name / NAME).is_file():
        raise DataError(f"{root / LATEST}: names {name!r}, which is not a whole checkpoint there")
    return root / name


def saved_steps(root: Path) -> dict[int, Path]:
    """All checkpoints below `root` by their steps, rising; none where there is no such folder."""
    found = root.iterdir() if root.is_dir() else ()
    named = ((STEP_FOLDER.fullmatch(path.name), path) for path in found)
    return dict(sorted((int(match[1]), path) for match, path in named if match))


def find_checkpoint(path: Path) -> Path:
    """`path` itself if it is a checkpoint, else the latest one below it."""
    if (path / NAME).is_file():
        return path
    found = latest_checkpoint(path)
    if found is None:
        raise DataError(f"{path}: holds no whole checkpoint")
    return found


def read_saved_step(path: Path) -> SavedStep:
    """The checkpoint that `find_checkpoint` finds; DataError when its manifest is none."""
    folder = find_checkpoint(path)
    manifest = read_json(folder / NAME)
    try:
        return SavedStep(folder, int(manifest["step"]), dict(manifest["record"]))
    except (TypeError, KeyError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{folder / NAME}: not a manifest: {what}") from error
