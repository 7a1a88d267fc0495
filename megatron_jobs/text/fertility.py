"""How many tokens a text takes: bytes per token, tokens per word, and what of a vocabulary is used.

Shape legend: V ids of a vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray
from tokenizers import Tokenizer

from megatron_jobs.text.token_bytes import bytes_by_id

BATCH_BYTES = 1 << 22
LONGEST = 10
"""Longest tokens that are shown."""


def count_words(text: str) -> int:
    """Words between the boundaries of Unicode, of those that begin with a letter or digit.

    Each Chinese sign, and each of hiragana, is a word; so are stretches of Thai.
    Source: Unicode Standard Annex 29, section 4.1.
    """
    return sum(1 for _ in _word().finditer(text))


@dataclass
class Count:
    """What one tokenizer makes of texts of one language."""

    texts: int = 0
    bytes: int = 0
    words: int = 0
    tokens: int = 0
    one_byte: int = 0
    """Tokens that stand for one byte."""
    broken: int = 0
    """Tokens that stand for bytes that are no whole characters."""
    unknown: int = 0
    """Tokens that stand for what the vocabulary cannot say."""

    def __add__(self, other: "Count") -> "Count":
        mine, theirs = asdict(self), asdict(other)
        return Count(**{name: mine[name] + theirs[name] for name in mine})

    def ratios(self) -> dict[str, float]:
        """The numbers of the report; 0 where there is nothing."""
        tokens = max(self.tokens, 1)
        return {
            "bytes_per_token": self.bytes / tokens,
            "tokens_per_word": self.tokens / max(self.words, 1),
            "one_byte": self.one_byte / tokens,
            "broken": self.broken / tokens,
            "unknown": self.unknown / tokens,
        }


@dataclass
class Measure:
    """Counts of one tokenizer, language by language.

    Args:
        tokenizer: of any kind; special tokens in texts are text, and none is added.
        unknown: its token for what it cannot say.
    Raises: UserError when the tokenizer does not say what its tokens stand for.
    """

    tokenizer: Tokenizer
    unknown: str | None = None
    languages: dict[str, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokenizer.encode_special_tokens = True
        self.spelled = bytes_by_id(self.tokenizer)
        self.size = max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.used = np.zeros(self.size, np.int64)
        self.one_byte_V = self._marks(lambda found: len(found) == 1)
        self.broken_V = self._marks(_is_broken)
        number = self.tokenizer.token_to_id(self.unknown) if self.unknown else None
        self.unknown_id = -1 if number is None else number

    def add(self, language: str, texts: Sequence[str], *, words: int) -> None:
        """Count texts of a language, with so many words in all."""
        counts_V = np.zeros(self.size, np.int64)
        for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            counts_V += np.bincount(np.asarray(encoding.ids, np.int64), minlength=self.size)
        self.used += counts_V
        new = Count(
            texts=len(texts),
            bytes=sum(len(text.encode()) for text in texts),
            words=words,
            tokens=int(counts_V.sum()),
            one_byte=int(counts_V[self.one_byte_V].sum()),
            broken=int(counts_V[self.broken_V].sum()),
            unknown=int(counts_V[self.unknown_id]) if self.unknown_id >= 0 else 0,
        )
        self.languages[language] = self.languages.get(language, Count()) + new

    def total(self) -> Count:
        """Of all languages."""
        return sum(self.languages.values(), Count())

    def unused(self) -> float:
        """Share of the tokens that stand for text and were not met."""
        numbers = np.array(sorted(self.spelled), np.int64)
        return float((self.used[numbers] == 0).mean()) if len(numbers) else 0.0

    def longest(self) -> list[str]:
        """The longest tokens of the vocabulary, as text."""
        order = sorted(self.spelled, key=lambda number: (-len(self.spelled[number]), number))
        return [self.spelled[number].decode("utf-8", "replace") for number in order[:LONGEST]]

    def report(self) -> dict[str, Any]:
        """All of it, as JSON."""
        return {
            "vocabulary": self.size,
            "all": asdict(self.total()) | self.total().ratios(),
            "languages": {
                name: asdict(count) | count.ratios()
                for name, count in sorted(self.languages.items())
            },
            "unused": self.unused(),
            "longest": self.longest(),
        }

    def _marks(self, what: Any) -> NDArray[np.bool_]:
        marks_V = np.zeros(self.size, np.bool_)
        marks_V[[number for number, found in self.spelled.items() if what(found)]] = True
        return marks_V


def in_batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in order, a few megabytes at a time."""
    first = held = 0
    for place, text in enumerate(texts):
        held += len(text)
        if held >= BATCH_BYTES:
            yield texts[first : place + 1]
            first, held = place + 1, 0
    if first < len(texts):
        yield texts[first:]


def _is_broken(found: bytes) -> bool:
    try:
        found.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


@cache
def _word() -> Any:
    return regex.compile(r"\b\w.*?\b", regex.WORD | regex.DOTALL)
