"""Is it prose? By the number, length and kind of words."""

from typing import Literal

from megatron_jobs.text.filters.characters import characters, phrases
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Missed, Thresholds


class GopherQuality(Thresholds):
    """Gopher's quality rules, in their order.

    Words of symbols alone count neither for the number of words nor for their length, as in
    datatrove. Source: Rae et al. 2021, appendix A1.1, arXiv:2112.11446.
    """

    rule: Literal["gopher_quality"] = "gopher_quality"
    min_words: int = 50
    """Words with more than symbols; fewer are too few."""
    max_words: int = 100_000
    """Words with more than symbols; more are too many."""
    min_word_length: float = 3
    """Characters, on average."""
    max_word_length: float = 10
    """Characters, on average."""
    max_hash_share: float = 0.1
    """Number signs by words."""
    max_ellipsis_share: float = 0.1
    """Ellipses by words."""
    max_bullet_lines: float = 0.9
    """Share of lines that begin with a bullet or a hyphen."""
    max_ellipsis_lines: float = 0.3
    """Share of lines that end in an ellipsis."""
    min_alphabetic: float = 0.8
    """Share of words with a letter."""
    min_stop_words: int = 2
    """How many different stop words there must be."""
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """For English; other languages need their own."""

    def missed(self, page: Page) -> Missed:
        """Yield each test that fails."""
        words = page.words
        if words.solid < self.min_words:
            yield "too_few_words", words.solid, self.min_words
        if words.solid > self.max_words:
            yield "too_many_words", words.solid, self.max_words
        length = words.solid_characters / max(words.solid, 1)
        if length < self.min_word_length:
            yield "short_words", length, self.min_word_length
        if length > self.max_word_length:
            yield "long_words", length, self.max_word_length
        yield from self._signs(page.text, max(len(words), 1))
        alphabetic = words.alphabetic / max(len(words), 1)
        if alphabetic < self.min_alphabetic:
            yield "alphabetic", alphabetic, self.min_alphabetic
        if (present := words.present(phrases(self.stop_words))) < self.min_stop_words:
            yield "stop_words", present, self.min_stop_words

    def _signs(self, text: str, words: int) -> Missed:
        from megatron_jobs._filters import line_shapes

        if (hashes := text.count("#") / words) > self.max_hash_share:
            yield "hashes", hashes, self.max_hash_share
        if (dots := (text.count("...") + text.count("…")) / words) > self.max_ellipsis_share:
            yield "ellipses", dots, self.max_ellipsis_share
        lines, bulleted, trailing = line_shapes(text, characters())
        if bulleted > self.max_bullet_lines * lines:
            yield "bullet_lines", bulleted / lines, self.max_bullet_lines
        if trailing > self.max_ellipsis_lines * lines:
            yield "ellipsis_lines", trailing / lines, self.max_ellipsis_lines
