"""Cuts out what stands in earlier documents of the same unit, byte for byte (suffix array)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Problem
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import (
    OUTPUTS,
    DocumentSettings,
    gather_documents,
    run_documents,
)

if TYPE_CHECKING:
    from megatron_jobs.text.repeats import Repeats

__all__ = ["OUTPUTS", "RESOURCES", "Config", "gather", "run"]
RESOURCES = Resources(cpus=2)


class Config(DocumentSettings):
    """What is a repetition. Each unit is compared within itself alone: what two units share stays.
    Make them as large as memory allows: seven bytes for each byte of text, at most 2 GiB of text;
    input that fits into one unit is compared as a whole."""

    unit_mb: float = 256
    """Megabytes (10^6 bytes) on disk that are compared as one; packed shards hold some three times
    as much text."""
    min_bytes: int = 200
    """The least that must repeat; Lee et al. 2022 take 50 tokens, some 200 bytes."""
    min_left: int = 100
    """Bytes, without white space at both ends, that a document must have left after a cut, or it is
    rejected."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        yield from super().problems()
        if self.min_bytes < 1:
            yield "min_bytes", f"{self.min_bytes} must be at least 1"
        if self.min_left < 0:
            yield "min_left", f"{self.min_left} is negative"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Treat this rank's units."""
    return run_documents(config, rank, folder, partial(_make, config))


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    """Put the tasks' outputs together."""
    return gather_documents(config, folder, tasks)


def _make(config: Config) -> "Repeats":
    from megatron_jobs.text.repeats import Repeats

    return Repeats(config.min_bytes, config.min_left)
