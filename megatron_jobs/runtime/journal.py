"""metrics.jsonl: one record a line, and none that was written by work that is lost."""

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from megatron_jobs.runtime.files import whole_file

NAME = "metrics.jsonl"


class Journal:
    """Appends records to a file; each is on its way to the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("a", encoding="utf-8")
        if _is_torn(path):
            self.file.write("\n")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record as a line of JSON; numbers that are not finite become null."""
        finite = {k: None if is_not_finite(v) else v for k, v in record.items()}
        self.file.write(json.dumps(finite, allow_nan=False) + "\n")
        self.file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.file.close()


def is_not_finite(value: Any) -> bool:
    """Whether a value is a NaN or an infinity, for which JSON has no word."""
    return isinstance(value, float) and not math.isfinite(value)


def _is_torn(path: Path) -> bool:
    """Whether the last line has no end: a full disk or the end of a node cut it short."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def rewind_journal(path: Path, step: int) -> None:
    """Drop the records of steps after `step`, and a last line that a kill cut short."""
    if not path.exists():
        return
    kept = [record for record in read_journal(path) if record.get("step", 0) <= step]
    with whole_file(path) as part:
        part.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole records of a journal, in order; a line that was cut short is none."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    found = [_record(line) for line in text[: text.rfind("\n") + 1].split("\n")]
    return [record for record in found if record is not None]


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
