"""Documents without copies: those that `cluster` found are rejected, or cut out of their texts."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import (
    OUTPUTS,
    DocumentSettings,
    gather_documents,
    list_units,
    read_rules,
    run_documents,
)

if TYPE_CHECKING:
    from megatron_jobs.text.passes import Treatment

__all__ = ["OUTPUTS", "RESOURCES", "Config", "gather", "run"]
RESOURCES = Resources(ranks=2)


class Config(DocumentSettings):
    """What is read, which must be what the `fingerprint` job read, and what goes."""

    removals: InputPath
    """Output of a `cluster` job, or of `bloom_duplicates`."""
    least_letters: int = 100
    """Of a text that lines, paragraphs or sentences were cut from; a shorter one is rejected, also
    when what is left of it stands nowhere else."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        yield from super().problems()
        if self.least_letters < 0:
            yield "least_letters", f"{self.least_letters} is negative; 0 keeps what is left"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write the documents that stay."""

    def make() -> "Treatment":
        from megatron_jobs.text.copies.removals import Removals
        from megatron_jobs.text.copies.remove import RemoveDocuments, RemoveSpans

        removals = Removals(config.removals, list_units(config), read_rules(config))
        if removals.settings.of_spans:
            return RemoveSpans(removals, config.least_letters)
        return RemoveDocuments(removals)

    return run_documents(config, rank, folder, make)


def gather(config: Config, folder: Path, tasks: Sequence[Path]) -> dict[str, float]:
    """Join what the tasks left."""
    return gather_documents(config, folder, tasks)
