"""Which texts hold phrases of evaluation sets, word for word.

Source: Brown et al. 2020 (GPT-3), appendix C: an evaluation item is contaminated when one of its
runs of 13 words stands in the training text; case and punctuation do not count, nor do Unicode
forms and soft hyphens.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from megatron_jobs._overlap import Phrases, words
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

RULE = "decontaminate.overlap"


@dataclass(frozen=True)
class Owner:
    """An evaluation item that a phrase stands in."""

    set: str
    item: str


@dataclass
class EvaluationPhrases:
    """The phrases of evaluation sets, each with the items it stands in."""

    size: int
    """Words of a phrase."""
    least: int
    """Words that a shorter item must have to count as a phrase of its own."""
    items: int = 0
    too_short: int = 0
    """Texts of items with less than `least` words: nothing can be found of them."""
    owners: dict[int, list[Owner]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.phrases = Phrases(size=self.size, least=self.least)

    def add(self, owner: Owner, texts: Iterable[str]) -> None:
        """Add the texts of an item, each by itself."""
        self.items += 1
        for text in texts:
            numbers = self.phrases.add(comparable(text).lower())
            self.too_short += not numbers
            for number in numbers:
                owners = self.owners.setdefault(number, [])
                if owner not in owners:
                    owners.append(owner)

    def find(self, text: str) -> list[tuple[int, int, int]]:
        """(first word, words, phrase) of every phrase in a text that is `comparable`."""
        return self.phrases.find(text.lower())


class Decontamination:
    """Rejects records that hold phrases of evaluation sets, or cuts the phrases out.

    Args:
        least_hits: phrases, counted once each, that make a record contaminated.
        cut: whether the words are cut out, with `margin` words on both sides, and the rest kept.
    """

    def __init__(
        self, known: EvaluationPhrases, *, least_hits: int = 1, cut: bool = False, margin: int = 0
    ) -> None:
        self.known, self.least_hits, self.cut, self.margin = known, least_hits, cut, margin
        self.counts: dict[str, int] = {}
        self.found: list[dict[str, Any]] = []

    def treat(self, record: Record) -> Record | Verdict:
        self.found = []
        plain = comparable(record.text)
        hits = self.known.find(plain)
        phrases = {phrase for _, _, phrase in hits}
        if len(phrases) < self.least_hits:
            return record
        self.found = [*self._notes(record, hits)]
        for name in {note["set"] for note in self.found}:
            self._count(f"contaminated.{name}")
        if self.cut:
            left = cut_out(plain, [(at, count) for at, count, _ in hits], self.margin)
            self._count("cut")
            if left.strip():
                record.text = left
                return record
        first = self.found[0]
        return Verdict(RULE, {name: first[name] for name in ("set", "item", "phrase")}, None)

    def numbers(self) -> dict[str, int]:
        found, self.counts = self.counts, {}
        return found

    def notes(self) -> list[dict[str, Any]]:
        """The hits of the record that was treated last."""
        return self.found

    def _notes(self, record: Record, hits: list[tuple[int, int, int]]) -> Iterator[dict[str, Any]]:
        told = set()
        for at, _, phrase in hits:
            if phrase in told:
                continue
            told.add(phrase)
            text = self.known.phrases.words_of(phrase)
            for owner in self.known.owners[phrase]:
                yield {
                    "set": owner.set,
                    "item": owner.item,
                    "document": record.id,
                    "word": at,
                    "phrase": text,
                }

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


def comparable(text: str) -> str:
    """A text in which equal words have equal letters: NFC, without soft hyphens."""
    return unicodedata.normalize("NFC", text).replace("\u00ad", "")


def cut_out(text: str, runs: Iterable[tuple[int, int]], margin: int) -> str:
    """A text without some runs of its words and what stands between them.

    Args:
        runs: (first word, words), in any order; they may overlap.
        margin: words that go with each run, on both sides.
    """
    raw = text.encode()
    spans = words(text)
    left, at = [], 0
    for first, count in sorted(runs):
        start = spans[max(first - margin, 0)][0]
        end = spans[min(first + count + margin, len(spans)) - 1][1]
        if start > at:
            left.append(raw[at:start])
        at = max(at, end)
    left.append(raw[at:])
    return b"".join(left).decode()
