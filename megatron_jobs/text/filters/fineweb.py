"""Is it made of whole lines? FineWeb's three rules, and its share of new lines."""

from typing import Literal

from megatron_jobs.text.filters.characters import characters
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Missed, Thresholds


class FineWeb(Thresholds):
    """FineWeb's rules: punctuated lines, short lines, repeated characters, lists.

    The thresholds are those of datatrove, which made FineWeb; the paper says 0.1 where its code has
    0.01 for repeated characters, and does not speak of lists.
    Source: Penedo et al. 2024, section 3.6, arXiv:2406.17557.
    """

    rule: Literal["fineweb"] = "fineweb"
    min_punctuated: float = 0.12
    """Share of lines that end as a sentence does."""
    max_short_lines: float = 0.67
    """Share of short lines."""
    short: int = 30
    """Characters; a line of more is not short."""
    max_repeated_characters: float = 0.01
    """Share of characters in lines that stood before; 0.1 in the paper."""
    max_new_lines: float = 0.3
    """Line ends by words."""

    def missed(self, page: Page) -> Missed:
        """Yield each test that fails."""
        from megatron_jobs._filters import line_ends

        lines, ended, brief, repeated, new = line_ends(page.text, characters(), brief=self.short)
        if not lines:
            yield "empty", 0, 1
            return
        if ended / lines < self.min_punctuated:
            yield "punctuated_lines", ended / lines, self.min_punctuated
        if brief / lines > self.max_short_lines:
            yield "short_lines", brief / lines, self.max_short_lines
        if (share := repeated / (len(page.text) - new)) > self.max_repeated_characters:
            yield "repeated_characters", share, self.max_repeated_characters
        if (share := new / max(len(page.words), 1)) > self.max_new_lines:
            yield "new_lines", share, self.max_new_lines
