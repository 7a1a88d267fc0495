"""One number for how good a text is: its perplexity, the diversity of its words, its safety."""

import math
from collections.abc import Iterator
from typing import Literal

from megatron_jobs.config.settings import Problem
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Missed, Thresholds

PARTS = ("perplexity", "diversity", "safety")


class Quality(Thresholds):
    """w1 perplexity + w2 diversity + w3 safety, by the sum of weights: 0 is worst, 1 is best.

    perplexity  log(worst / found) / log(worst / best), at least 0, at most 1
    diversity   share of different words in a window, the mean over all windows
    safety      1 - toxicity

    Perplexity and toxicity are read from the metadata, where the rules `perplexity` and
    `classifier` leave them. The score and the diversity are kept as metadata.
    Source: Covington and McFall 2010 (moving-average type-token ratio), for diversity.
    """

    rule: Literal["quality"] = "quality"
    perplexity_weight: float = 1
    """w1; 0 asks for no perplexity."""
    diversity_weight: float = 1
    """w2."""
    safety_weight: float = 1
    """w3; 0 asks for no toxicity."""
    perplexity: str = "perplexity"
    """The name under which the metadata hold it."""
    best_perplexity: float | None = None
    """This, or less, counts 1; such as the end of the head of the model's quantiles."""
    worst_perplexity: float | None = None
    """This, or more, counts 0."""
    toxicity: str = "toxicity"
    """The name under which the metadata hold it, from 0 to 1."""
    window: int = 100
    """Words and punctuation marks, as all rules cut them."""
    metadata: str = "quality_score"
    """The name of the score."""
    min: float | None = None
    """Less is rejected; null only writes the score."""
    missing: Literal["reject", "pass"] = "reject"
    """What becomes of records without one of the numbers."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        weights = {f"{part}_weight": getattr(self, f"{part}_weight") for part in PARTS}
        for name, weight in weights.items():
            if not 0 <= weight < math.inf:
                yield name, f"{weight} must be at least 0"
        if not any(weights.values()):
            yield "rule", f"quality needs at least one of {', '.join(weights)}"
        if self.perplexity_weight and not 0 < (self.best_perplexity or 0) < (
            self.worst_perplexity or 0
        ):
            found = f"{self.best_perplexity}, {self.worst_perplexity}"
            rule = "must both be given, above 0 and in order; or perplexity_weight: 0"
            yield "best_perplexity", f"{found} (best, worst) {rule}"
        if self.window < 1:
            yield "window", f"{self.window} must be at least 1"
        if self.min is not None and not 0 <= self.min <= 1:
            yield "min", f"{self.min} must be from 0 to 1"

    def missed(self, page: Page) -> Missed:
        """Yield the test that fails."""
        metadata = page.record.metadata
        total = weights = 0.0
        for part in PARTS:
            if not (weight := getattr(self, f"{part}_weight")):
                continue
            value = getattr(self, f"_{part}")(page)
            if value is None:
                if self.missing == "reject":
                    yield f"{getattr(self, _NAMES[part])}.missing", None, "a number"
                return
            total, weights = total + weight * value, weights + weight
        metadata[self.metadata] = score = round(total / weights, 6)
        if self.min is not None and score < self.min:
            yield f"too_low_{self.metadata}", score, self.min

    def _perplexity(self, page: Page) -> float | None:
        found = _number(page, self.perplexity)
        if found is None:
            return None
        assert self.best_perplexity is not None
        assert self.worst_perplexity is not None
        spread = math.log(self.worst_perplexity / self.best_perplexity)
        return _unit(math.log(self.worst_perplexity / max(found, 1e-300)) / spread)

    def _diversity(self, page: Page) -> float:
        share = page.words.distinct_share(self.window)
        page.record.metadata["diversity"] = round(share, 6)
        return share

    def _safety(self, page: Page) -> float | None:
        found = _number(page, self.toxicity)
        return None if found is None else _unit(1 - found)


_NAMES = {"perplexity": "perplexity", "safety": "toxicity"}
"""Part -> the setting that names its number."""


def _number(page: Page, name: str) -> float | None:
    found = page.record.metadata.get(name)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or math.isnan(found):
        return None
    return found


def _unit(value: float) -> float:
    return min(max(value, 0.0), 1.0)
