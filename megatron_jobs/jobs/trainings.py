"""The jobs of a run that leave weights: what they read, and with whose weights they began."""

import datetime
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from megatron_jobs.errors import DataError
from megatron_jobs.jobs.folder import JobFolder, read_job
from megatron_jobs.jobs.receipt import REPLACED, read_receipt
from megatron_jobs.jobs.status import read_jobs
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.journal import NAME as METRICS
from megatron_jobs.runtime.journal import read_journal
from megatron_jobs.runtime.progress import read_progress
from megatron_jobs.runtime.saved_steps import (
    LOADED,
    NAME,
    STEP_FOLDER,
    read_saved_step,
    saved_steps,
)

PRETRAIN, CONVERT = "pretrain", "convert"
CHECKPOINTS, CONVERTED, INDEX = "checkpoints", "model", "index"
"""What the stages call their outputs."""


@dataclass(frozen=True)
class Training:
    """A job that leaves weights, or outdated work of one."""

    run: Path
    folder: Path
    """Of the job, or in RUN/.replaced."""
    settings: dict[str, Any]
    """Of its config.yaml or receipt; none for outdated work that was not finished."""

    @property
    def name(self) -> str:
        """The folder, in its run."""
        return self.folder.relative_to(self.run).as_posix()

    @property
    def trains(self) -> bool:
        """Whether it reads an index; a conversion does not."""
        return bool(self.settings.get("stage", PRETRAIN) == PRETRAIN)

    @cached_property
    def checkpoints(self) -> dict[int, Path]:
        """By step; of a conversion what it wrote, by 0."""
        found = saved_steps(self.folder / CHECKPOINTS)
        model = self.folder / CONVERTED
        return found or ({0: model} if model.is_dir() and not self.trains else {})

    @cached_property
    def _noted(self) -> dict[str, Any]:
        """What its checkpoints note of the training."""
        whole = [path for path in self.checkpoints.values() if (path / NAME).is_file()]
        return read_saved_step(whole[-1]).record if whole and self.trains else {}

    @cached_property
    def _loaded(self) -> dict[str, Any]:
        path = self.folder / LOADED
        found: dict[str, Any] = read_json(path) if path.is_file() else {}
        return found

    @property
    def samples_per_step(self) -> int:
        """0 where nothing tells."""
        asked = self.settings.get("batch", {}).get("global_size", 0)
        return int(self._noted.get("samples_per_step", asked))

    @cached_property
    def index_step(self) -> int | None:
        """The step behind which its index begins; None where a start is to come that decides it."""
        from megatron_jobs.data.start import noted_step

        if self._loaded:
            return int(self._loaded["index_step"])
        waits = self.settings.get("load") and not self.settings.get("finetune") and not self._noted
        return None if waits else noted_step(self._noted)

    @cached_property
    def last_step(self) -> int:
        """The last one that it has made; 0 before the first.

        Not every step is written down, and what is can be lost: a checkpoint says it as well.
        """
        steps = [record.get("step", 0) for record in read_journal(self.folder / METRICS)]
        progress = read_progress(self.folder) or {}
        return int(max(0, *steps, progress.get("done", 0), *self.checkpoints))

    @property
    def steps(self) -> int:
        """The last one that it will have made; outdated work makes none any more."""
        outdated = self.folder.parent.name == REPLACED
        return self.last_step if outdated else int(self.settings.get("steps", self.last_step))

    @property
    def began_with(self) -> Path | None:
        """The checkpoint or model of another job whose weights it began with."""
        if not self.trains:
            return Path(self.settings["source"])
        found = self._loaded.get("checkpoint") or self.settings.get("load")
        return Path(found) if found else None

    @property
    def began(self) -> float:
        """When it took those, in seconds since 1970."""
        places = [self.folder / LOADED, self.folder / CONVERTED, self.folder]
        return next(place.stat().st_mtime for place in places if place.exists())

    def find_index(self) -> Path | None:
        """The index that it reads, wherever it is now in the run; None when it is gone."""
        wanted = self._noted.get("index", {}).get("identity", "")
        named = Path(self.settings["index"]) if "index" in self.settings else None
        if named and named.is_dir() and wanted in ("", _identity(named)):
            return named
        moved = (folder / INDEX for folder in outdated_folders(self.run))
        places = [*(path for path in self.run.glob(f"*/{INDEX}")), *moved]
        return next((one for one in places if wanted and _identity(one) == wanted), None)


def trainings(run: Path) -> list[Training]:
    """All jobs of a run that leave weights, each after those it waits for."""
    found = (Training(run, run / name, record) for name, record in read_jobs(run).items())
    return [one for one in found if one.settings["stage"] in (PRETRAIN, CONVERT)]


def outdated_trainings(run: Path) -> list[Training]:
    """What was moved aside when settings or inputs of such jobs changed."""
    found = []
    for folder in outdated_folders(run):
        receipt = read_receipt(JobFolder(folder)) or {}
        settings = receipt.get("config", {})
        known = settings.get("stage") in (PRETRAIN, CONVERT)
        if known or (not settings and (folder / CHECKPOINTS).is_dir()):
            found.append(Training(run, folder, settings))
    return found


def outdated_folders(run: Path) -> list[Path]:
    """RUN/.replaced/JOB-TIME of all jobs, by name."""
    place = run / REPLACED
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


def maker_of(path: Path, when: float) -> Training | None:
    """The job, of any run, that had written a checkpoint or model at `path` by a time.

    What stood there then may have been moved aside since. None when no job's folder is around it.
    """
    for folder in path.parents:
        if folder.parent.name == REPLACED:
            settings = (read_receipt(JobFolder(folder)) or {}).get("config", {})
            return Training(folder.parents[1], folder, settings)
        if (folder / "config.yaml").is_file():
            return _as_of(folder, when)
    return None


def step_of(path: Path, maker: Training) -> int:
    """Up to which step of its maker a checkpoint was trained; of a folder of several the last."""
    named = STEP_FOLDER.fullmatch(path.name)
    if named and maker.trains:
        return int(named[1])
    return max(maker.checkpoints, default=maker.last_step)


def _as_of(folder: Path, when: float) -> Training:
    run = folder.parent
    for moved in outdated_folders(run):
        name, _, stamp = moved.name.rpartition(f"{folder.name}-")
        if not name and _time_of(stamp) > when:
            settings = (read_receipt(JobFolder(moved)) or {}).get("config", {})
            return Training(run, moved, settings)
    return Training(run, folder, read_job(JobFolder(folder)))


def _time_of(stamp: str) -> float:
    """Seconds since 1970 of the end of a name in RUN/.replaced; 0 for one of another job's."""
    try:
        return datetime.datetime.strptime(stamp, "%Y%m%d-%H%M%S-%f").timestamp()
    except ValueError:
        return 0.0


def _identity(index: Path) -> str | None:
    from megatron_jobs.data.sample_index import index_identity, read_facts

    try:
        return index_identity(read_facts(index))
    except DataError:
        return None
