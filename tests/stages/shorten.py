"""A pass over records: texts are cut to some letters, empty ones rejected."""

import time
from pathlib import Path

from megatron_jobs.config.resources import Resources
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import (
    OUTPUTS,
    DocumentSettings,
    gather_documents,
    run_documents,
)
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

__all__ = ["GATHER", "LAYOUT", "OUTPUTS", "RESOURCES", "Config", "gather", "run"]
RESOURCES = Resources(hours=0.1)
GATHER = Resources(hours=0.05)
LAYOUT = ("pause",)


class Config(DocumentSettings):
    """How much is kept."""

    letters: int = 5
    pause: float = 0
    """Seconds that each record takes."""


class _Shorten:
    def __init__(self, letters: int, pause: float) -> None:
        self.letters, self.pause, self.cut = letters, pause, 0

    def treat(self, record: Record) -> Record | Verdict:
        time.sleep(self.pause)
        if not record.text:
            return Verdict("shorten.empty", 0, 1)
        self.cut += len(record.text) > self.letters
        record.text = record.text[: self.letters]
        return record

    def numbers(self) -> dict[str, int]:
        found, self.cut = {"shortened": self.cut}, 0
        return found


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    return run_documents(config, rank, folder, lambda: _Shorten(config.letters, config.pause))


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    return gather_documents(config, folder, tasks)
