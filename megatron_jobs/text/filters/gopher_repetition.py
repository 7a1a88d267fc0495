"""Does it repeat itself? By lines, paragraphs and runs of words."""

from typing import Literal

from pydantic import Field

from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Missed, Thresholds


class GopherRepetition(Thresholds):
    """Gopher's rules of repetition, paragraphs first, as in datatrove.

    Shares of characters are of all characters of the text.
    Source: Rae et al. 2021, table A1, arXiv:2112.11446.
    """

    rule: Literal["gopher_repetition"] = "gopher_repetition"
    max_lines: float = 0.30
    """Share of lines that stood before."""
    max_paragraphs: float = 0.30
    """Share of paragraphs that stood before."""
    max_line_characters: float = 0.20
    """Share of characters in lines that stood before."""
    max_paragraph_characters: float = 0.20
    """Share of characters in paragraphs that stood before."""
    max_top: dict[int, float] = Field(default={2: 0.20, 3: 0.18, 4: 0.16})
    """Words in a run -> share of characters that the most frequent such run takes up."""
    max_repeated: dict[int, float] = Field(
        default={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    )
    """Words in a run -> share of characters in such runs that stood before."""

    def missed(self, page: Page) -> Missed:
        """Yield each test that fails."""
        if not page.text:
            yield "empty", 0, 1
            return
        for name, text, breaks in (("paragraphs", page.text.strip(), 2), ("lines", page.text, 1)):
            yield from self._parts(name, text, breaks, len(page.text))
        words = page.words
        for n, limit in self.max_top.items():
            if (share := words.top_run(n) / len(page.text)) > limit:
                yield f"top_{n}_words", share, limit
        for n, limit in self.max_repeated.items():
            if (share := words.repeated_runs(n) / len(page.text)) > limit:
                yield f"repeated_{n}_words", share, limit

    def _parts(self, name: str, text: str, breaks: int, size: int) -> Missed:
        from megatron_jobs._filters import repeats

        parts, repeated, characters = repeats(text, breaks=breaks)
        by_number = {"paragraphs": self.max_paragraphs, "lines": self.max_lines}[name]
        if repeated / parts > by_number:
            yield f"repeated_{name}", repeated / parts, by_number
        by_size = {"paragraphs": self.max_paragraph_characters, "lines": self.max_line_characters}
        if characters / size > by_size[name]:
            yield f"repeated_{name[:-1]}_characters", characters / size, by_size[name]
