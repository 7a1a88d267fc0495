"""Who is spoken of in a text, and which tone the words around them have.

A mention is the longest term that begins at a word, and the next one begins behind it. The words
near a group are those at most `window` words from one of its mentions, without the mentions.
"""

import heapq
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from megatron_jobs._overlap import Phrases, words
from megatron_jobs.text.hashed_sample import text_key
from megatron_jobs.text.word_lists import WordLists

SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"'”’)\]]|$)")
Counted = dict[str, int]
AROUND = 60
"""Bytes of text on both sides of an example."""


@dataclass
class Mentions:
    """Counts of texts; they can be added up."""

    documents: int = 0
    words: int = 0
    groups: Counted = field(default_factory=dict)
    """Mentions by `category.group`."""
    tones: Counted = field(default_factory=dict)
    near_words: Counted = field(default_factory=dict)
    """Words near a group, each once."""
    near_tones: Counted = field(default_factory=dict)
    """Terms of a tone that begin near a group, by `group|tone`."""
    examples: dict[str, list[list[Any]]] = field(default_factory=dict)
    """By `group|tone`: (key, document, words), those of the lowest keys."""

    def add(self, other: "Mentions", *, examples: int = 0) -> None:
        """Add up; of the examples so many are kept, whatever the order."""
        self.documents += other.documents
        self.words += other.words
        for name in ("groups", "tones", "near_words", "near_tones"):
            mine, more = getattr(self, name), getattr(other, name)
            for key, count in more.items():
                mine[key] = mine.get(key, 0) + count
        for key, found in other.examples.items():
            self.examples[key] = heapq.nsmallest(examples, [*self.examples.get(key, []), *found])


@dataclass(frozen=True)
class Seen:
    """A mention: its first word, how many words, and the lists it stands in."""

    at: int
    count: int
    groups: Sequence[str]
    tones: Sequence[str]


class MentionCounter:
    """Counts the terms of lists in texts.

    Args:
        window: words on both sides of a mention that are near it.
        examples: that are kept for each group and tone.
    """

    def __init__(self, lists: WordLists, *, window: int = 10, examples: int = 0) -> None:
        self.window, self.examples = window, examples
        terms = [term for one in (lists.groups, lists.tones) for t in one.values() for term in t]
        size = max((len(words(term)) for term in terms), default=1) or 1
        self._phrases = Phrases(size=size, least=1)
        self._groups: dict[int, list[str]] = {}
        self._tones: dict[int, list[str]] = {}
        self.without_words: list[str] = []
        """Terms that hold no letter and no digit: they cannot be found."""
        self._enter(lists.groups, self._groups)
        self._enter(lists.tones, self._tones)

    def _enter(self, lists: dict[str, tuple[str, ...]], owners: dict[int, list[str]]) -> None:
        for name, terms in lists.items():
            numbers = [self._phrases.add(term) for term in terms]
            self.without_words += [t for t, found in zip(terms, numbers, strict=True) if not found]
            for number in {number for found in numbers for number in found}:
                owners.setdefault(number, []).append(name)

    def count(self, text: str, document: str, into: Mentions) -> list[tuple[int, int]]:
        """Count a text; returns (start, end) of its words in bytes of `text.lower()`."""
        lower = text.lower()
        spans = words(lower)
        into.documents += 1
        into.words += len(spans)
        seen = [*self._mentions(lower)]
        for one in seen:
            for name in one.groups:
                into.groups[name] = into.groups.get(name, 0) + 1
            for name in one.tones:
                into.tones[name] = into.tones.get(name, 0) + 1
        toned = [one for one in seen if one.tones]
        for group in {name: None for one in seen for name in one.groups}:
            own = [one for one in seen if group in one.groups]
            runs = near(own, self.window, len(spans))
            total = sum(end - start for start, end in runs)
            into.near_words[group] = into.near_words.get(group, 0) + total
            for one in _inside(toned, runs):
                self._near(group, one, into)
                self._example(group, one, (lower, spans, document), into)
        return spans

    def _mentions(self, lower: str) -> Iterator[Seen]:
        end = 0
        for at, count, phrase in self._phrases.find(lower):
            if at < end:
                continue
            end = at + count
            yield Seen(at, count, self._groups.get(phrase, ()), self._tones.get(phrase, ()))

    def _near(self, group: str, one: Seen, into: Mentions) -> None:
        for tone in one.tones:
            key = f"{group}|{tone}"
            into.near_tones[key] = into.near_tones.get(key, 0) + 1

    def _example(
        self, group: str, one: Seen, where: tuple[str, list[tuple[int, int]], str], into: Mentions
    ) -> None:
        """Keep the words around, where they belong to those of the lowest hash."""
        if not self.examples:
            return
        lower, spans, document = where
        raw = lower.encode("utf-8", "surrogatepass")
        start, end = spans[one.at][0], spans[one.at + one.count - 1][1]
        around = raw[max(start - AROUND, 0) : end + AROUND].decode("utf-8", "ignore")
        example = [text_key(f"{document}\0{one.at}"), document, " ".join(around.split())]
        for tone in one.tones:
            key = f"{group}|{tone}"
            found = [*into.examples.get(key, []), example]
            into.examples[key] = heapq.nsmallest(self.examples, found)


def near(mentions: Sequence[Seen], window: int, length: int) -> list[tuple[int, int]]:
    """Runs [start, end) of the words at most `window` words from one of `mentions`, which are in
    order and do not overlap, without these."""
    runs: list[tuple[int, int]] = []
    done = 0
    for place, one in enumerate(mentions):
        end = one.at + one.count
        following = mentions[place + 1].at if place + 1 < len(mentions) else length
        for start, stop in ((one.at - window, one.at), (end, min(end + window, following))):
            start = max(start, done)
            if stop > start:
                runs.append((start, stop))
            done = max(done, stop)
        done = max(done, end)
    return runs


def _inside(mentions: Sequence[Seen], runs: Sequence[tuple[int, int]]) -> Iterator[Seen]:
    """Those whose first word is in one of the runs; both are in order."""
    place = 0
    for one in mentions:
        while place < len(runs) and runs[place][1] <= one.at:
            place += 1
        if place < len(runs) and runs[place][0] <= one.at:
            yield one


def sentences(text: str) -> int:
    """Sentences of an English text: ends before a space, at least one."""
    return max(1, len(SENTENCE_END.findall(text)))


def readability(letters: float, word_count: float, sentence_count: float) -> float:
    """The school year that a text asks of its reader, by the lengths of words and sentences.

    Source: Smith and Senter 1967, automated readability index, AMRL-TR-66-220.
    """
    return 4.71 * letters / word_count + 0.5 * word_count / sentence_count - 21.43
