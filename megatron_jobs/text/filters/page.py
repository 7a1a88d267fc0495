"""A record under judgement, and what its rules share."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from megatron_jobs.text.filters.characters import characters
from megatron_jobs.text.record import Record

if TYPE_CHECKING:
    from megatron_jobs._filters import Words

Splitter = Callable[[str, str], list[str]]
"""(text, language) -> its words, in order."""


class Page:
    """A record, its words cut once for all rules, and what rules have done to it.

    Args:
        record: rules may change its language and metadata; its text through `rewrite` alone.
        splitter: cuts words in place of our own rules (csrc/filters/split.h).
        counts: what rules count, by dotted name.
    """

    def __init__(
        self, record: Record, splitter: Splitter | None = None, counts: Counter[str] | None = None
    ) -> None:
        self.record = record
        self.splitter = splitter
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._words: Words | None = None

    @property
    def text(self) -> str:
        """As the rules before have left it."""
        return self.record.text

    @property
    def words(self) -> "Words":
        """The words of the text."""
        if self._words is None:
            self._words = self.cut(self.text)
        return self._words

    def cut(self, text: str) -> "Words":
        """The words of another text in this language."""
        from megatron_jobs._filters import Words

        if self.splitter is None:
            return Words(text, characters())
        return Words.given(self.splitter(text, self.record.language), characters())

    def rewrite(self, text: str) -> None:
        """Give the record another text."""
        self.record.text, self._words = text, None
