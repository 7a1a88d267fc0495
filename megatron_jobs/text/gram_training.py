"""Training a model of n-grams (`perplexity`): word numbers, Kneser-Ney estimates, its files."""

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._ngrams import WORDS_VERSION, fill_table, train_grams
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import write_json
from megatron_jobs.text.perplexity import (
    ALL,
    END,
    FACTS,
    FIRST_WORD,
    FORMAT,
    SINGLES,
    TOKENIZER,
    WORDS,
)

if TYPE_CHECKING:
    from megatron_jobs._ngrams import TrainedGrams

LINE_END = 0
"""Among hashes of words; see csrc/ngrams/words.h."""
QUANTILES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Vocabulary:
    """The words of a model: numbers from FIRST_WORD, by their hashes in ascending order."""

    def __init__(self, hashes: NDArray[np.uint64], rare: int) -> None:
        self.hashes = hashes
        """[words], ascending."""
        self.rare = rare
        """Different words that were too rare: they share the unknown word's probability."""

    @classmethod
    def of(cls, documents: Iterable[NDArray[np.uint64]], *, min_count: int) -> "Vocabulary":
        """Of all words that occur at least `min_count` times in the documents' hashes."""
        found, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        for block in _blocks(documents):
            words, times = np.unique(block, return_counts=True)
            every = np.concatenate([found, words])
            found, places = np.unique(every, return_inverse=True)
            sums = np.bincount(places, weights=np.concatenate([counts, times]))
            counts = sums.astype(np.int64)
        counts = counts[found != LINE_END]
        found = found[found != LINE_END]
        return cls(found[counts >= min_count], int((counts < min_count).sum()))

    @property
    def size(self) -> int:
        """Word numbers are below it."""
        return FIRST_WORD + len(self.hashes)

    def number(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """Word numbers of hashes: 0 for others, END for the ends of lines."""
        places = np.searchsorted(self.hashes, hashes)
        last = max(len(self.hashes) - 1, 0)
        known = self.hashes[np.minimum(places, last)] == hashes
        numbers = np.where(known, places + FIRST_WORD, 0)
        return np.where(hashes == LINE_END, END, numbers).astype(np.uint32)

    def table(self) -> NDArray[np.uint64]:
        """For words.npy."""
        numbers = np.arange(FIRST_WORD, self.size, dtype=np.uint64)
        return fill_table(self.hashes, numbers)


def _blocks(
    documents: Iterable[NDArray[np.uint64]], size: int = 1 << 22
) -> Iterable[NDArray[np.uint64]]:
    """The documents' arrays joined to some `size` items each."""
    waiting: list[NDArray[np.uint64]] = []
    items = 0
    for document in documents:
        waiting.append(document)
        items += len(document)
        if items >= size:
            yield np.concatenate(waiting)
            waiting, items = [], 0
    if waiting:
        yield np.concatenate(waiting)


def train(
    words: NDArray[np.uint32], *, vocabulary: int, order: int, threads: int
) -> "TrainedGrams":
    """Estimates of all n-grams; UserError when there is no word to learn from."""
    if not len(words) or vocabulary <= FIRST_WORD:
        raise UserError(
            "input: found no word to learn from; give it more text, or a lower min_count"
        )
    return train_grams(words, vocabulary=vocabulary, order=order, threads=threads)


def quantiles(values: Mapping[str, list[float]], *, least: int) -> dict[str, dict[str, Any]]:
    """Perplexities of documents by language, as numbers that split them: `thirds` for head, middle
    and tail, and quantiles by their share.

    Args:
        values: perplexities by language; NaN is left out.
        least: documents that a language needs to have figures of its own; all together always do.
    """
    everything = [value for found in values.values() for value in found]
    wanted = {name: found for name, found in sorted(values.items()) if name and len(found) >= least}
    return {
        name: facts
        for name, found in {ALL: everything, **wanted}.items()
        if (facts := _quantiles_of([value for value in found if math.isfinite(value)]))
    }


def _quantiles_of(values: list[float]) -> dict[str, Any]:
    if not values:
        return {}
    third, two = (float(x) for x in np.quantile(values, [1 / 3, 2 / 3]))
    found = np.quantile(values, QUANTILES)
    return {
        "documents": len(values),
        "thirds": [third, two],
        "quantiles": {str(q): float(x) for q, x in zip(QUANTILES, found, strict=True)},
    }


def save_grams(
    trained: "TrainedGrams",
    folder: Path,
    *,
    words: Vocabulary | Path,
    facts: dict[str, Any],
) -> None:
    """Write a model's files into a folder.

    Args:
        words: what numbers the words, or the tokenizer.json whose ids they are.
        facts: further ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokens = isinstance(words, Path)
    np.save(folder / SINGLES, trained["singles"])
    for order, table in enumerate(trained["tables"], start=2):
        np.save(folder / f"grams_{order}.npy", table)
    if isinstance(words, Path):
        shutil.copyfile(words, folder / TOKENIZER)
    else:
        np.save(folder / WORDS, words.table())
    about = {
        "format": FORMAT,
        "words_version": WORDS_VERSION,
        "unit": "tokens" if tokens else "words",
        "order": len(trained["tables"]) + 1,
        "unknown_words": 1 if isinstance(words, Path) else words.rare + 1,
        "vocabulary": len(trained["singles"]) - FIRST_WORD,
        "ngrams": trained["counts"],
        "discounts": [list(found[:3]) for found in trained["discounts"]],
        "discounts_guessed": [n + 1 for n, f in enumerate(trained["discounts"]) if f[3]],
    }
    write_json(folder / FACTS, about | facts)
