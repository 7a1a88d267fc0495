"""Shares of kinds of characters, of all that are no white space."""

from collections.abc import Iterator
from typing import Literal

from megatron_jobs.config.settings import Problem
from megatron_jobs.text.filters.characters import characters
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Missed, Thresholds, outside


class Symbols(Thresholds):
    """Limits of one's own; corpora set them by language, so none is set from the start.

    Source: Laurençon et al. 2022, arXiv:2303.03915 (ROOTS), for such limits by language.
    """

    rule: Literal["symbols"] = "symbols"
    min_letters: float | None = None
    """Share of letters, with the marks on them."""
    max_capitals: float | None = None
    """Share of capitals."""
    max_digits: float | None = None
    """Share of digits."""
    max_punctuation: float | None = None
    """Share of punctuation."""
    max_others: float | None = None
    """Share of all that are neither letters, digits nor punctuation, such as signs and emoji."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        given = {name: value for name, value in self.model_dump().items() if name != "rule"}
        if all(value is None for value in given.values()):
            yield "rule", f"symbols needs at least one of {', '.join(given)}"
        for name, value in given.items():
            if value is not None and not 0 <= value <= 1:
                yield name, f"{value} must be from 0 to 1"

    def missed(self, page: Page) -> Missed:
        """Yield each test that fails."""
        from megatron_jobs._filters import kind_counts

        spaces, *counts = kind_counts(page.text, characters())
        solid = max(len(page.text) - spaces, 1)
        letters, capitals, digits, punctuation = (count / solid for count in counts)
        yield from outside("letters", letters, self.min_letters, None)
        yield from outside("capitals", capitals, None, self.max_capitals)
        yield from outside("digits", digits, None, self.max_digits)
        yield from outside("punctuation", punctuation, None, self.max_punctuation)
        yield from outside("others", 1 - letters - digits - punctuation, None, self.max_others)
