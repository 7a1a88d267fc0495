"""How surprising a model of n-grams finds a text."""

import math
from collections.abc import Iterator
from typing import Literal

from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.errors import UserError
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Judge, Rule, outside
from megatron_jobs.text.filters.score import Bucket
from megatron_jobs.text.shards import Verdict


class Perplexity(Rule):
    """Keeps the perplexity and its bucket as metadata, and limits them.

    Source: Wenzek et al. 2020, arXiv:1911.00359.
    """

    rule: Literal["perplexity"] = "perplexity"
    model: InputPath
    """The output `perplexity` of a perplexity_model job, or a file of KenLM's (.arpa, .bin)."""
    min: float | None = None
    """Less is rejected: it repeats what the model knows by heart."""
    max: float | None = None
    """More is rejected."""
    keep: tuple[Bucket, ...] = ("head", "middle", "tail")
    """Thirds of the language's documents, by the model's quantiles, that pass."""
    metadata: str = "perplexity"
    """The name of the score; its bucket is NAME_bucket."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if not self.keep:
            yield "keep", "found none, must name at least one of head, middle, tail"

    def prepare(self) -> Judge:
        """The judge."""
        from megatron_jobs.text.perplexity import ALL, load_perplexity

        model = load_perplexity(self.model)
        bucketed = ALL in model.facts.get("quantiles", {})
        if not bucketed and len(self.keep) < 3:
            wanted = ", ".join(self.keep)
            raise UserError(
                f"keep: found {wanted}, but {self.model} has no quantiles to tell them by"
            )

        def judge(page: Page) -> Verdict | None:
            value, metadata = model.score(page.text), page.record.metadata
            if math.isnan(value):
                return Verdict("perplexity.no_words", 0, 1)
            metadata[self.metadata] = min(round(value, 3), 1e300)
            for test, found, limit in outside(self.metadata, value, self.min, self.max):
                return Verdict(f"perplexity.{test}", found, limit)
            if not bucketed:
                return None
            bucket = model.bucket(value, page.record.language)
            metadata[f"{self.metadata}_bucket"] = bucket
            if bucket not in self.keep:
                return Verdict(f"perplexity.{bucket}", round(value, 3), list(self.keep))
            return None

        return judge
