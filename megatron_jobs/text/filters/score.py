"""Limits of a number that a stage before has left in the metadata."""

from collections.abc import Iterator
from typing import Literal

from megatron_jobs.config.settings import Problem
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Missed, Thresholds, outside

Bucket = Literal["head", "middle", "tail"]


class Score(Thresholds):
    """Limits of a score; or CCNet's head, middle and tail, cut at quantiles of each language.

    Source: Wenzek et al. 2020, arXiv:1911.00359, for the buckets.
    """

    rule: Literal["score"] = "score"
    metadata: str
    """Its name."""
    min: float | None = None
    """Less is rejected."""
    max: float | None = None
    """More is rejected."""
    cuts: dict[str, tuple[float, float]] = {}  # noqa: RUF012 - pydantic copies it
    """Language -> (end of the head, end of the middle); "" for all others."""
    keep: tuple[Bucket, ...] = ("head", "middle", "tail")
    """Buckets that pass."""
    missing: Literal["reject", "pass"] = "reject"
    """What becomes of records without the number."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if self.min is None and self.max is None and not self.cuts:
            yield "rule", "score needs at least one of min, max, cuts"
        for language, (first, second) in self.cuts.items():
            if first > second:
                yield f"cuts.{language}", f"{first}, {second} must be in order"

    def missed(self, page: Page) -> Missed:
        """Yield each test that fails."""
        found = page.record.metadata.get(self.metadata)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            if self.missing == "reject":
                yield f"{self.metadata}.missing", found, "a number"
            return
        yield from outside(self.metadata, found, self.min, self.max)
        cuts = self.cuts.get(page.record.language, self.cuts.get(""))
        if cuts is not None:
            bucket = ("head", "middle", "tail")[(found > cuts[0]) + (found > cuts[1])]
            page.record.metadata[f"{self.metadata}_bucket"] = bucket
            if bucket not in self.keep:
                yield f"{self.metadata}.{bucket}", found, list(cuts)
