"""Which texts say what evaluation items say, in other words: by the cosine of their vectors.

Shapes: I texts of items, W windows of a document, H hidden size.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._overlap import words
from megatron_jobs.text.overlap import Decontamination, Owner
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

RULE = "decontaminate.embedding"
Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Vectors [N, H] of length 1 of N texts."""
TOGETHER = 512
"""Windows that are embedded at once."""
ITEMS_TOGETHER = 65536
"""Items that these are compared with at once: 134 MB of cosines."""
UNLIKE = 2
"""Texts of which one has more than so many times the words of the other are not compared."""
SENTENCE_END = re.compile(r"[.!?…]['\"”’)\]]*\s|[\n。！？]")
CLOSING = re.compile(r"[.!?…。！？]*")
CLOSING_BYTES = 12
DIGITS = 4
"""Of a cosine."""


@dataclass(frozen=True)
class Window:
    """A stretch of words of a text."""

    document: int
    """The place of its text among those that are looked at."""
    word: int
    """Its first."""
    text: str


@dataclass(frozen=True)
class Likeness:
    """A window of a document and the item that it is like."""

    window: Window
    item: int
    cosine: float


class EvaluationTexts:
    """The texts of evaluation items as vectors.

    Args:
        items: whose text it is, and the text; what is longer than `longest` becomes several.
        longest: words of a window.
        least_cosine: from which a window is a hit.
    """

    def __init__(
        self,
        items: Iterable[tuple[Owner, str]],
        embed: Embed,
        *,
        longest: int,
        least_cosine: float,
    ) -> None:
        self.embed, self.longest, self.least_cosine = embed, longest, least_cosine
        found = [(owner, part) for owner, text in items for part in cut_item(text, longest)]
        self.owners = [owner for owner, _ in found]
        self.texts = [text for _, text in found]
        self.sizes = [len(words(text)) for text in self.texts]
        self.vectors_IH = embed(self.texts)

    def windows(self, document: int, text: str) -> Iterator[Window]:
        """Sentences, and runs of them that are not over twice as long as every item.

        None is under half as long as every item.
        """
        if not self.sizes:
            return
        least, most = min(self.sizes) / UNLIKE, min(max(self.sizes) * UNLIKE, self.longest)
        raw, spans = text.encode("utf-8", "surrogatepass"), words(text)
        cuts = sentence_cuts(raw, spans, self.longest)
        for place, first in enumerate(cuts[:-1]):
            for end in cuts[place + 1 :]:
                if end - first > most and end > cuts[place + 1]:
                    break
                if end - first >= least:
                    yield Window(document, first, _text_of(raw, spans[first:end]))

    def find(self, texts: Iterable[str]) -> Iterator[list[Likeness]]:
        """For each text, of each item that it is like the window that is most like it."""
        waiting: list[Window] = []
        count = 0
        for text in texts:
            waiting += self.windows(count, text)
            count += 1
            if len(waiting) >= TOGETHER:
                yield from self._find(waiting, count)
                waiting, count = [], 0
        yield from self._find(waiting, count)

    def _find(self, windows: list[Window], texts: int) -> list[list[Likeness]]:
        best: list[dict[Owner, Likeness]] = [{} for _ in range(texts)]
        for start in range(0, len(windows), TOGETHER):
            for likeness in self._likenesses(windows[start : start + TOGETHER]):
                of_text, owner = best[likeness.window.document], self.owners[likeness.item]
                before = of_text.get(owner)
                if before is None or likeness.cosine > before.cosine:
                    of_text[owner] = likeness
        return [sorted(one.values(), key=lambda found: -found.cosine) for one in best]

    def _likenesses(self, windows: list[Window]) -> Iterator[Likeness]:
        vectors_WH = self.embed([window.text for window in windows])
        for start in range(0, len(self.owners), ITEMS_TOGETHER):
            cosines_WI = vectors_WH @ self.vectors_IH[start : start + ITEMS_TOGETHER].T
            for w, i in np.argwhere(cosines_WI >= self.least_cosine).tolist():
                yield Likeness(windows[w], start + i, round(float(cosines_WI[w, i]), DIGITS))


def sentence_cuts(raw: bytes, spans: Sequence[tuple[int, int]], longest: int) -> list[int]:
    """Words at which sentences begin, from 0, and the number of words at the end.

    A sentence of more than `longest` words is cut every `longest` words. Lines end sentences, and
    an abbreviation may: runs of sentences make up for it.

    Args:
        spans: (start, end) of each word in `raw`.
    """
    cuts = [0]
    for place in range(1, len(spans)):
        between = raw[spans[place - 1][1] : spans[place][0]].decode("utf-8", "replace")
        if place - cuts[-1] == longest or SENTENCE_END.search(between):
            cuts.append(place)
    return [*cuts, len(spans)] if spans else [0]


def cut_item(text: str, longest: int) -> list[str]:
    """A text of an item: itself, or sentences that fill `longest` words but for the last of it."""
    raw, spans = text.encode("utf-8", "surrogatepass"), words(text)
    if len(spans) <= longest:
        return [_text_of(raw, spans)] if spans else []
    first, parts = 0, []
    for cut, following in pairwise(sentence_cuts(raw, spans, longest)):
        if following - first > longest:
            parts.append((first, cut))
            first = cut
    parts.append((first, len(spans)))
    enough = [part for part in parts if part[1] - part[0] >= longest / UNLIKE]
    return [_text_of(raw, spans[begin:end]) for begin, end in enough]


def _text_of(raw: bytes, spans: Sequence[tuple[int, int]]) -> str:
    """From the first word to the last, with the mark that ends it."""
    begin, end = spans[0][0], spans[-1][1]
    mark = CLOSING.match(raw[end : end + CLOSING_BYTES].decode("utf-8", "ignore"))
    return raw[begin:end].decode("utf-8", "replace") + (mark[0] if mark else "")


class EmbeddingDecontamination:
    """Rejects what holds phrases of evaluation items, then what is like one of their texts."""

    def __init__(self, phrases: Decontamination, known: EvaluationTexts) -> None:
        self.phrases, self.known = phrases, known
        self.ahead: deque[list[Likeness]] = deque()
        self.counts: dict[str, int] = {}
        self.found: list[dict[str, Any]] = []

    def prepare(self, records: Iterable[Record]) -> None:
        """Look at all texts of the next unit, many windows at once."""
        self.ahead = deque(self.known.find(record.text for record in records))

    def treat(self, record: Record) -> Record | Verdict:
        likenesses = self.ahead.popleft()
        result = self.phrases.treat(record)
        self.found = [self._note(record, likeness) for likeness in likenesses]
        for name in {note["set"] for note in self.found}:
            self.counts[f"similar.{name}"] = self.counts.get(f"similar.{name}", 0) + 1
        if isinstance(result, Verdict) or not self.found:
            return result
        told = {name: self.found[0][name] for name in ("set", "item", "cosine")}
        return Verdict(RULE, told, self.known.least_cosine)

    def numbers(self) -> dict[str, int]:
        found, self.counts = self.counts, {}
        return self.phrases.numbers() | found

    def notes(self) -> list[dict[str, Any]]:
        """The hits of the record that was treated last."""
        return [*self.phrases.notes(), *self.found]

    def _note(self, record: Record, likeness: Likeness) -> dict[str, Any]:
        owner = self.known.owners[likeness.item]
        return {
            "set": owner.set,
            "item": owner.item,
            "document": record.id,
            "word": likeness.window.word,
            "phrase": " ".join(likeness.window.text.split()),
            "asked": " ".join(self.known.texts[likeness.item].split()),
            "cosine": likeness.cosine,
        }
