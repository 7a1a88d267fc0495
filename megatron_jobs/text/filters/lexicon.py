"""Words from lists by language, such as bad ones."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.text.filters.characters import characters, phrases
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Judge, Rule
from megatron_jobs.text.filters.word_lists import read_lines
from megatron_jobs.text.shards import Verdict

UNSPACED = ("ja", "km", "lo", "my", "th", "zh")
"""Languages without spaces: entries are found inside of words."""
RUN = re.compile(r"\w+")
Count = Callable[[Page], int]
"""How many words of a page are listed."""


class Lexicon(Rule):
    """Rejects pages of which too many words are on the list of their language.

    With its defaults one word is too many, as in C4. Source: Raffel et al. 2020, section 2.2,
    and the List of Dirty, Naughty, Obscene or Otherwise Bad Words (LDNOOBW).
    """

    rule: Literal["lexicon"] = "lexicon"
    files: dict[str, InputPath]
    """Language -> words and phrases, one a line or a JSON list; case does not count."""
    allow: tuple[str, ...] = ()
    """Entries that are passed over."""
    max_words: int = 0
    """More listed words are too many, when they are over `max_share` too."""
    max_share: float = 0.0
    """Of all words."""
    default_language: str = "en"
    """Of records that name none. Those of a language without a list pass."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if not self.files:
            yield "files", "found none, must name a list for at least one language"
        if not 0 <= self.max_share <= 1:
            yield "max_share", f"{self.max_share} must be from 0 to 1"

    def prepare(self) -> Judge:
        """The judge."""
        counts = {language: self._counter(language) for language in self.files}

        def judge(page: Page) -> Verdict | None:
            count = counts.get(page.record.language or self.default_language)
            if count is None:
                page.counts["lexicon.no_list"] += 1
                return None
            found = count(page)
            if found <= self.max_words or found <= self.max_share * len(page.words):
                return None
            if self.max_share:
                share = found / max(len(page.words), 1)
                return Verdict("lexicon.share", share, self.max_share)
            return Verdict("lexicon.words", found, self.max_words)

        return judge

    def _counter(self, language: str) -> Count:
        allowed = {entry.lower() for entry in self.allow}
        entries = [entry.lower() for entry in read_lines(self.files[language])]
        entries = [" ".join(entry.split()) for entry in entries if entry not in allowed]
        if language in UNSPACED:
            pattern = re.compile("|".join(map(re.escape, entries)) or "(?!)")
            return lambda page: sum(1 for _ in pattern.finditer(page.text.lower()))
        return _spaced_counter(entries)


def _spaced_counter(entries: Sequence[str]) -> Count:
    """A count of words of entries that stand between other characters than those of words.

    Most texts have none: runs of word characters tell so at once.
    """
    from megatron_jobs._filters import Words

    cut = {entry: RUN.findall(entry) for entry in entries}
    runs = phrases(tuple(" ".join(parts) for parts in cut.values()))
    signs = [entry for entry, parts in cut.items() if not parts]

    def count(page: Page) -> int:
        text = page.text.lower()
        found = RUN.findall(text)
        if not Words.given(found, characters()).present(runs) and not any(
            sign in text for sign in signs
        ):
            return 0
        there, text = set(found), " ".join(text.split())
        starts: set[int] = set()
        for entry, parts in cut.items():
            if there.issuperset(parts):
                starts.update(_word_starts(entry, text))
        return len(starts)

    return count


def _word_starts(entry: str, text: str) -> Iterator[int]:
    """Where each word begins of an entry that is no part of a longer word."""
    place = text.find(entry)
    while place >= 0:
        end = place + len(entry)
        if not RUN.match(text[place - 1 : place]) and not RUN.match(text[end : end + 1]):
            yield place
            yield from (place + i + 1 for i, c in enumerate(entry) if c == " ")
        place = text.find(entry, place + 1)
