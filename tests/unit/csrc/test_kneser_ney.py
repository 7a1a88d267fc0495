"""Kneser-Ney estimates, against a slow version that counts as the paper writes it."""

import math
import random
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest

from megatron_jobs._ngrams import GramScorer, fill_table, gram_keys, train_grams

Line = list[int]
BEGIN, END = 1, 2


class Slow:
    """Interpolated modified Kneser-Ney, one formula a method. Source: Chen and Goodman 1998."""

    def __init__(self, lines: list[Line], order: int, vocabulary: int) -> None:
        self.order, self.vocabulary = order, vocabulary
        found = [Counter[tuple[int, ...]]() for _ in range(order + 1)]
        for line in lines:
            words = [BEGIN, *line, END]
            for i in range(1, len(words)):
                for n in range(1, min(order, i + 1) + 1):
                    found[n][tuple(words[i - n + 1 : i + 1])] += 1
        self.counts = {order: dict(found[order])}
        for n in range(1, order):
            before: dict[tuple[int, ...], set[int]] = {}
            for gram in found[n + 1]:
                before.setdefault(gram[1:], set()).add(gram[0])
            self.counts[n] = {
                gram: count if gram[0] == BEGIN else len(before[gram])
                for gram, count in found[n].items()
            }
        self.p = cache(self._p)

    def discount(self, n: int, count: int) -> float:
        if not count:
            return 0.0
        of = Counter(self.counts[n].values())
        if not (of[1] and of[2] and of[3]):
            return (0.5, 1.0, 1.5)[min(count, 3) - 1]
        y = of[1] / (of[1] + 2 * of[2])
        all_three = [k - (k + 1) * y * of[k + 1] / of[k] for k in (1, 2, 3)]
        if any(not 0 <= d <= k for k, d in zip((1, 2, 3), all_three, strict=True)):
            all_three = [0.5, 1.0, 1.5]
        return all_three[min(count, 3) - 1]

    def _p(self, word: int, context: tuple[int, ...]) -> float:
        n = len(context) + 1
        follows = {g[-1]: c for g, c in self.counts[n].items() if g[:-1] == context}
        lower = self.p(word, context[1:]) if context else 1 / (self.vocabulary - 1)
        if not follows:
            return lower
        total = sum(follows.values())
        left = sum(self.discount(n, c) for c in follows.values()) / total
        count = follows.get(word, 0)
        return (count - self.discount(n, count)) / total + left * lower


def corpus(seed: int, vocabulary: int) -> list[Line]:
    draw = random.Random(seed)
    words = [0, *range(3, vocabulary)]
    return [
        [
            draw.choice(words) if draw.random() < 0.5 else 3 + i % 4
            for i in range(draw.randint(0, 8))
        ]
        for _ in range(60)
    ]


def laid_out(lines: list[Line]) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.array([word for line in lines for word in [*line, END]], dtype=np.uint32)


def scorer(trained: dict[str, Any]) -> GramScorer:
    return GramScorer(trained["singles"].reshape(-1), trained["tables"])


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_probabilities_are_those_of_the_slow_version(order: int, seed: int) -> None:
    vocabulary = 12
    lines = corpus(seed, vocabulary)
    slow = Slow(lines, order, vocabulary)
    found = scorer(train_grams(laid_out(lines), vocabulary=vocabulary, order=order))
    draw = random.Random(seed)
    for _ in range(60):
        line = [draw.choice([0, *range(3, vocabulary)]) for _ in range(7)] + [END]
        before = [BEGIN]
        for word, log_p in zip(line, found.score_words(laid_out([line])[:-1]), strict=True):
            wanted = slow.p(word, tuple(before[-(order - 1) :]))
            assert log_p == pytest.approx(math.log10(wanted), abs=2e-6)
            before.append(word)


@pytest.mark.parametrize("order", [2, 5])
def test_probabilities_sum_to_one(order: int) -> None:
    vocabulary = 30
    found = scorer(train_grams(laid_out(corpus(2, vocabulary)), vocabulary=vocabulary, order=order))
    draw = random.Random(3)
    for size in (0, 1, 2, 6):
        before = [draw.choice(range(3, vocabulary)) for _ in range(size)]
        every = [0, 2, *range(3, vocabulary)]
        p = [10 ** found.score_words(np.array([*before, w], np.uint32))[-1] for w in every]
        assert sum(p) == pytest.approx(1, abs=1e-5)


def test_threads_change_nothing() -> None:
    words = laid_out(corpus(4, 40) * 5)
    one = train_grams(words, vocabulary=40, order=4, threads=1)
    for threads in (2, 7):
        other = train_grams(words, vocabulary=40, order=4, threads=threads)
        assert np.array_equal(one["singles"], other["singles"])
        pairs = zip(one["tables"], other["tables"], strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
        assert one["discounts"] == other["discounts"]


def test_unknown_words_share_one_probability() -> None:
    trained = train_grams(laid_out([[0, 3, 4], [3, 0, 0], [4, 3]]), vocabulary=5, order=2)
    alone = scorer(trained)
    shared = GramScorer(trained["singles"].reshape(-1), trained["tables"], unknown_words=100)
    words = np.array([0, 3, 0, END], dtype=np.uint32)
    difference = alone.score_words(words) - shared.score_words(words)
    assert difference == pytest.approx([2, 0, 2, 0], abs=1e-6)
    log_p, count = alone.score_lines(words)
    assert log_p == pytest.approx(alone.score_words(words).sum(), abs=1e-5)
    assert count == 4


def test_what_cannot_be_trained() -> None:
    words = np.array([3, END], dtype=np.uint32)
    for order, vocabulary, given, message in (
        (1, 5, words, "order must be from 2 to 5, got 1"),
        (2, 3, words, r"vocabulary must be from 4 to 2\^25 - 1, got 3"),
        (2, 5, words[:1], "words must end with the end of a line"),
        (2, 5, words[:0], "words must end with the end of a line"),
        (2, 5, np.array([5, 2], np.uint32), "words must be below 5 and never .* found 5"),
        (2, 5, np.array([1, 2], np.uint32), "words must be below 5 and never .* found 1"),
    ):
        with pytest.raises(ValueError, match=message):
            train_grams(given, vocabulary=vocabulary, order=order)
    with pytest.raises(ValueError, match="words must be uint32, got int64"):
        train_grams(np.array([3, 2]), vocabulary=5, order=2)  # type: ignore[arg-type]


def test_what_cannot_be_a_model() -> None:
    singles = np.zeros(10, dtype=np.float32)
    with pytest.raises(ValueError, match=r"singles must be \[vocabulary, 2\], got 4 items"):
        GramScorer(singles[:4], [])
    with pytest.raises(
        ValueError, match="a table must have a power of two of slots of two numbers"
    ):
        GramScorer(singles, [np.zeros(6, dtype=np.uint64)])
    with pytest.raises(ValueError, match="words must be below 5, found 5"):
        GramScorer(singles, []).score_words(np.array([5], dtype=np.uint32))


def test_tables_hold_what_was_put_in() -> None:
    draw = np.random.default_rng(0)
    keys = gram_keys(draw.integers(0, 99, 3000).astype(np.uint32), order=3)
    keys = np.unique(keys)
    table = fill_table(keys, np.arange(len(keys), dtype=np.uint64)).reshape(-1, 2)
    filled = {int(k): int(v) for k, v in table if k}
    assert filled == {int(k): i for i, k in enumerate(keys)}
    with pytest.raises(ValueError, match="keys must differ, item 1 is an earlier one"):
        fill_table(np.array([7, 7], np.uint64), np.zeros(2, np.uint64))
    with pytest.raises(ValueError, match="keys must not be 0, item 0 is"):
        fill_table(np.zeros(1, np.uint64), np.zeros(1, np.uint64))
    with pytest.raises(ValueError, match="keys and values must be of one size, got 1 and 0"):
        fill_table(np.ones(1, np.uint64), np.zeros(0, np.uint64))
    with pytest.raises(ValueError, match=r"words must be \[n-grams, order\], got 4"):
        gram_keys(np.zeros(4, np.uint32), order=3)
