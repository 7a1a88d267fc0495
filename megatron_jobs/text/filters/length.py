"""Limits of a text's length."""

from collections.abc import Iterator
from typing import Literal

from megatron_jobs.config.settings import Problem
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Missed, Thresholds, outside


class Length(Thresholds):
    """Limits of one's own; CCNet, for one, keeps texts of 300 characters and more.

    Source: Wenzek et al. 2020, arXiv:1911.00359 (its code's `min_len`).
    """

    rule: Literal["length"] = "length"
    min_characters: int | None = None
    """Unicode code points."""
    max_characters: int | None = None
    """Unicode code points."""
    min_words: int | None = None
    """Words and punctuation marks, as all rules cut them."""
    max_words: int | None = None
    """Words and punctuation marks, as all rules cut them."""
    min_lines: int | None = None
    """Lines that are not blank."""
    max_lines: int | None = None
    """Lines that are not blank."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        values = {name: value for name, value in self.model_dump().items() if name != "rule"}
        if all(value is None for value in values.values()):
            yield "rule", f"length needs at least one of {', '.join(values)}"
        for what in ("characters", "words", "lines"):
            low, high = values[f"min_{what}"], values[f"max_{what}"]
            if low is not None and high is not None and low > high:
                yield f"min_{what}", f"{low} is over max_{what}, {high}: nothing would go on"

    def missed(self, page: Page) -> Missed:
        """Yield each test that fails."""
        yield from outside("characters", len(page.text), self.min_characters, self.max_characters)
        if self.min_lines is not None or self.max_lines is not None:
            lines = sum(not line.isspace() for line in page.text.splitlines() if line)
            yield from outside("lines", lines, self.min_lines, self.max_lines)
        if self.min_words is not None or self.max_words is not None:
            yield from outside("words", len(page.words), self.min_words, self.max_words)
