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
from tests.stages.echo import await_release

__all__ = ["GATHER", "LAYOUT", "OUTPUTS", "RESOURCES", "Config", "gather", "run"]
RESOURCES = Resources(hours=0.1)
GATHER = Resources(hours=0.05)
LAYOUT = ("pause", "hold", "held_at")


class Config(DocumentSettings):
    """How much is kept."""

    letters: int = 5
    pause: float = 0
    """Seconds that each record takes."""
    hold: str = ""
    """A file: nobody gets past record `held_at` as long as it is there."""
    held_at: int = 0


class _Shorten:
    def __init__(self, config: Config) -> None:
        self.config, self.cut, self.seen = config, 0, 0

    def treat(self, record: Record) -> Record | Verdict:
        time.sleep(self.config.pause)
        self.seen += 1
        if self.seen == self.config.held_at:
            await_release(self.config.hold)
        if not record.text:
            return Verdict("shorten.empty", 0, 1)
        self.cut += len(record.text) > self.config.letters
        record.text = record.text[: self.config.letters]
        return record

    def numbers(self) -> dict[str, int]:
        found, self.cut = {"shortened": self.cut}, 0
        return found


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    return run_documents(config, rank, folder, lambda: _Shorten(config))


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    return gather_documents(config, folder, tasks)
