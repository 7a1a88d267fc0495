"""What texts are made of, in bytes: by licence, language, year and domain; their lengths and words.

Memory is bounded: of a kind with very many names, such as domains, the rarest become one `rest`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self
from urllib.parse import urlsplit

from megatron_jobs.text.record import Record
from megatron_jobs.text.representation import (
    MentionCounter,
    Mentions,
    readability,
    sentences,
)

NAMES = 100_000
"""Of a kind that are held; twice as many for a while."""
LETTERS = 200
"""Of a name that are held."""
GRADES = (-1, 25)
"""School years of `readability` that are told apart; all beyond is in the first or last."""


@dataclass
class Tally:
    """Sums by name."""

    counts: dict[str, int] = field(default_factory=dict)
    rest: int = 0
    """Sum of names that are not held."""

    def put(self, name: str, count: int) -> None:
        name = name[:LETTERS]
        self.counts[name] = self.counts.get(name, 0) + count
        if len(self.counts) > 2 * NAMES:
            self._drop()

    def add(self, other: "Tally") -> None:
        self.rest += other.rest
        for name, count in other.counts.items():
            self.put(name, count)

    def _drop(self) -> None:
        ranked = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))
        self.rest += sum(count for _, count in ranked[NAMES:])
        self.counts = dict(ranked[:NAMES])


@dataclass
class Composition:
    """Counts of documents; they can be added up."""

    documents: int = 0
    bytes: int = 0
    quarantined: int = 0
    sources: Tally = field(default_factory=Tally)
    """Bytes, here and in the next four."""
    licences: Tally = field(default_factory=Tally)
    languages: Tally = field(default_factory=Tally)
    years: Tally = field(default_factory=Tally)
    domains: Tally = field(default_factory=Tally)
    lengths: Tally = field(default_factory=Tally)
    """Documents by the binary order of their bytes."""
    grades: Tally = field(default_factory=Tally)
    """Documents by the school year that they ask for; only those whose words were counted."""
    letters: int = 0
    sentences: int = 0
    mentions: Mentions = field(default_factory=Mentions)

    def add(self, other: "Composition", *, examples: int = 0) -> None:
        """Add up."""
        for part in fields(self):
            mine, more = getattr(self, part.name), getattr(other, part.name)
            if isinstance(mine, int):
                setattr(self, part.name, mine + more)
            elif isinstance(mine, Mentions):
                mine.add(more, examples=examples)
            else:
                mine.add(more)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From `dataclasses.asdict` of one."""
        found = cls()
        for part in fields(found):
            value, form = values[part.name], type(getattr(found, part.name))
            setattr(found, part.name, form(**value) if isinstance(value, dict) else value)
        return found


class CompositionCounter:
    """Counts records; the words of those in some languages too.

    Args:
        languages: whose words are counted; "" for records that name none.
    """

    def __init__(self, mentions: MentionCounter, languages: Sequence[str]) -> None:
        self.mentions, self.languages = mentions, frozenset(languages)

    def count(self, record: Record, into: Composition) -> None:
        """Count one."""
        size = len(record.text.encode("utf-8", "surrogatepass"))
        into.documents += 1
        into.bytes += size
        into.sources.put(record.source, size)
        into.licences.put(record.licence, size)
        into.languages.put(record.language, size)
        into.years.put(year_of(record.date), size)
        into.domains.put(domain_of(record.url), size)
        into.lengths.put(str(size.bit_length()), 1)
        if record.language in self.languages:
            self._words(record, into)

    def _words(self, record: Record, into: Composition) -> None:
        spans = self.mentions.count(record.text, record.id, into.mentions)
        if not spans:
            return
        letters = _letters(record.text.lower(), spans)
        ends = sentences(record.text)
        into.letters += letters
        into.sentences += ends
        grade = round(readability(letters, len(spans), ends))
        into.grades.put(str(min(max(grade, GRADES[0]), GRADES[1])), 1)


def year_of(date: str) -> str:
    """The year of an ISO 8601 date; "" for anything else."""
    year, rest = date[:4], date[4:5]
    return year if year.isascii() and year.isdigit() and len(year) == 4 and rest in "-T " else ""


def domain_of(url: str) -> str:
    """The host of an address, without `www.`; "" where there is none."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return ""
    return host.removeprefix("www.").rstrip(".")


def _letters(text: str, spans: Sequence[tuple[int, int]]) -> int:
    """Characters of the words, whose ends are in bytes."""
    if text.isascii():
        return sum(end - start for start, end in spans)
    raw = text.encode("utf-8", "surrogatepass")
    return sum(len(raw[start:end].decode("utf-8", "replace")) for start, end in spans)
