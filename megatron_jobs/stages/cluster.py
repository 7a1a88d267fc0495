"""Clusters of copies, and which document of each stays; over ranks that share all documents.

The job's ranks work together (not tasks): each holds what belongs to its share of the documents.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.runtime.files import file_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.pieces import begin

OUTPUTS = ("removals", "duplicates.json")
RESOURCES = Resources(ranks=2)


class Config(Settings):
    """What is joined, and what stays."""

    fingerprints: InputPath
    """Output of a `fingerprint` job."""
    edges: InputPath
    """Edges of the `match` job of these fingerprints."""
    matches: InputPath | None = None
    """matches.json of that job, for the report; null for the one beside `edges`."""
    keep: Literal["first", "longest", "score", "newest"] = "first"
    """Which document of a cluster stays: the first of the input, the longest, the one with the
    highest `score` (see fingerprint), or the one with the last date; of equal ones the first."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work together."""
        about = self.fingerprints / "about.json"
        if self.keep == "first" or not about.exists():
            return
        from megatron_jobs.text.copies.store import Fingerprints

        prints = Fingerprints(self.fingerprints)
        if prints.settings.of_spans:
            method = prints.settings.method
            yield "keep", f"{self.keep}, but a repeated {method} stays where it is first: first"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write folder/removals, and duplicates.json."""
    from megatron_jobs.text.copies.cluster_work import ClusterWork

    begin(rank, folder, _made_of(config, rank), ("steps", *OUTPUTS))
    work = ClusterWork(
        fingerprints=config.fingerprints,
        edges=config.edges,
        keep=config.keep,
        folder=folder,
        rank=rank,
    )
    work.run()
    if not rank.leads:
        return {}
    return work.report(config.matches or config.edges.parent / "matches.json")


def _made_of(config: Config, rank: Rank) -> dict[str, Any]:
    """What the steps depend on: with another number of ranks they are other steps."""
    about = file_hash(config.fingerprints / "about.json")
    return {"settings": config.model_dump(mode="json"), "about": about, "ranks": rank.world}
