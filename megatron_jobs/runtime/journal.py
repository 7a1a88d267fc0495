"""metrics.jsonl: one record a line, and none that was written by work that is lost."""

import json
import math
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


def rewind_journal(path: Path, step: int) -> None:
    """Drop the records of steps after `step`, and a last line that a kill cut short."""
    if not path.exists():
        return
    kept = [record for record in read_journal(path) if record.get("step", 0) <= step]
    with whole_file(path) as part:
        part.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All whole records of a journal, in order; a line without its newline is not one."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]
