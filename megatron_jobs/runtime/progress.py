"""How far a job is: one small file that its leader writes and `mj run` and `mj status` show."""

import json
import time
from pathlib import Path
from typing import Any

from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import PARTIAL, read_json

NAME = "progress.json"


class Progress:
    """Writes RUN/JOB/progress.json at most every `every` seconds; the last word always lands.

    Args:
        folder: the job's folder.
        total: steps, documents, bytes: whatever is counted.
        unit: its name in the plural.
    """

    def __init__(self, folder: Path, *, total: int, unit: str, every: float = 0.5) -> None:
        self.path = folder / NAME
        self.total = total
        self.unit = unit
        self.every = every
        self.started = time.time()
        self.first: int | None = None
        self.written = 0.0

    def update(self, done: int, **numbers: float) -> None:
        """Say that `done` of `total` are finished; `numbers` (loss=...) are shown beside it."""
        if self.first is None:
            self.first = done
        now = time.time()
        if now - self.written < self.every and done < self.total:
            return
        self.written = now
        pace = (done - self.first) / max(now - self.started, 1e-9)
        left = (self.total - done) / pace if pace > 0 else None
        record: dict[str, Any] = {"done": done, "total": self.total, "unit": self.unit}
        record |= {"seconds_left": left, "time": now, "numbers": numbers}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{NAME}{PARTIAL}")
        part.write_text(json.dumps(record), encoding="utf-8")
        part.replace(self.path)  # whole, but not forced to the disk: it is for watching only


def read_progress(folder: Path) -> dict[str, Any] | None:
    """The last record of a job's progress; None before its first, or when a lost node left it cut
    short: it is not forced to the disk."""
    try:
        record: dict[str, Any] = read_json(folder / NAME)
    except (FileNotFoundError, DataError):
        return None
    return record
