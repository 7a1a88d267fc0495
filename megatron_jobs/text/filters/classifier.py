"""What a classifier that was trained in the suite thinks of a text: quality, toxicity."""

from collections.abc import Iterator
from typing import Literal

from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Judge, Rule, outside
from megatron_jobs.text.shards import Verdict


class Classifier(Rule):
    """Keeps the probability of the classifier's label as metadata, and limits it."""

    rule: Literal["classifier"] = "classifier"
    model: InputPath
    """The output `classifier` of a classifier job."""
    metadata: str = "quality"
    """The name of the score."""
    min: float | None = None
    """Less is rejected; null and no `max` only writes the score."""
    max: float | None = None
    """More is rejected."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        for name in ("min", "max"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                yield name, f"{value} must be from 0 to 1"

    def prepare(self) -> Judge:
        """The judge."""
        from megatron_jobs.text.linear_model import load_classifier

        model = load_classifier(self.model)

        def judge(page: Page) -> Verdict | None:
            score = round(model.score(page.text), 6)
            page.record.metadata[self.metadata] = score
            for test, found, limit in outside(self.metadata, score, self.min, self.max):
                return Verdict(f"classifier.{test}", found, limit)
            return None

        return judge
