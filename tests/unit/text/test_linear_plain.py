"""A whole training, from texts to probabilities, against one in plain Python.

The plain one counts n-grams by their words, not by hashes, so that only hashes that fall together
could tell the two apart: 2^20 buckets for some hundred n-grams. It takes the documents in the order
that the seed draws, AdaGrad one n-gram at a time, and calibrates by small steps downhill.
"""

import math
from itertools import pairwise

import numpy as np
import pytest

from megatron_jobs._ngrams import gram_buckets
from megatron_jobs.text.hashed_sample import is_held_out, text_key
from megatron_jobs.text.linear_model import Features, LinearModel
from megatron_jobs.text.linear_training import Documents, FitRules, build_model
from tests.unit.text.test_linear_model import texts_of

FEATURES = Features(bits=20)
HELD_OUT = 0.4
SIZES = {"bad": 90, "good": 40}
RULES = FitRules(epochs=3, rate=0.2, batch=8, seed=3)
Grams = list[str]


def grams_of(text: str) -> Grams:
    """Its words and pairs of neighbours; digits are all alike."""
    words = ["".join("0" if c.isdigit() else c for c in word) for word in text.lower().split()]
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


class Plain:
    """Two labels; the score speaks for the second."""

    def __init__(self, documents: list[tuple[str, int]]) -> None:
        self.weights: dict[str, float] = {}
        self.squares: dict[str, float] = {}
        self.bias = self.bias_square = 0.0
        documents = sorted(documents, key=lambda pair: text_key(pair[0]))
        held = [is_held_out(text_key(text), HELD_OUT) for text, _ in documents]
        judged = [is_held_out(text_key(text), HELD_OUT / 2) for text, _ in documents]
        self.learn(documents, [i for i, out in enumerate(held) if not out])
        tuned = [pair for pair, h, j in zip(documents, held, judged, strict=True) if h and not j]
        self.tested = [pair for pair, j in zip(documents, judged, strict=True) if j]
        self.slope, self.offset = self.calibrated(tuned)

    def z(self, text: str) -> float:
        grams = grams_of(text)
        return self.bias + sum(self.weights.get(g, 0) for g in grams) / math.sqrt(len(grams))

    def learn(self, documents: list[tuple[str, int]], which: list[int]) -> None:
        counts = [sum(documents[i][1] == label for i in which) for label in (0, 1)]
        random = np.random.default_rng(RULES.seed)
        for epoch in range(RULES.epochs):
            rate = RULES.rate * (1 - epoch / RULES.epochs)
            order = [documents[i] for i in random.permutation(which)]
            for start in range(0, len(order), RULES.batch):
                batch = order[start : start + RULES.batch]
                for (text, label), z in zip(
                    batch, [self.z(text) for text, _ in batch], strict=True
                ):
                    g = (sigmoid(z) - label) * len(which) / (2 * counts[label])
                    self.change(grams_of(text), g, rate)

    def change(self, grams: Grams, g: float, rate: float) -> None:
        self.bias_square += g * g
        self.bias -= rate * g / math.sqrt(self.bias_square + 1e-8)
        g /= math.sqrt(len(grams))
        for gram in grams:
            self.squares[gram] = self.squares.get(gram, 0) + g * g
            step = rate * g / math.sqrt(self.squares[gram] + 1e-8)
            self.weights[gram] = self.weights.get(gram, 0) - step

    def calibrated(self, documents: list[tuple[str, int]]) -> tuple[float, float]:
        """Platt's two numbers: his targets, each label weighing alike."""
        ones = sum(label for _, label in documents)
        zeros = len(documents) - ones
        target = {1: (ones + 1) / (ones + 2), 0: 1 / (zeros + 2)}
        weight = {1: len(documents) / 2 / ones, 0: len(documents) / 2 / zeros}
        rows = [(self.z(text), target[label], weight[label]) for text, label in documents]
        slope, offset = 1.0, 0.0
        for _ in range(20_000):
            errors = [(z, w * (sigmoid(slope * z + offset) - t)) for z, t, w in rows]
            slope -= 0.05 * sum(z * error for z, error in errors) / len(rows)
            offset -= 0.05 * sum(error for _, error in errors) / len(rows)
        return slope, offset

    def score(self, text: str) -> float:
        return sigmoid(self.slope * self.z(text) + self.offset)


def corpus() -> list[tuple[str, int]]:
    return [
        (text, label)
        for label, (name, size) in enumerate(SIZES.items())
        for text in texts_of(name, size, noise=0.6)
    ]


def trained(positive: str) -> LinearModel:
    rows = [
        (text_key(text), label, gram_buckets(text, **vars(FEATURES))) for text, label in corpus()
    ]
    return build_model(
        Documents.join(rows),
        names=list(SIZES),
        positive=positive,
        features=FEATURES,
        rules=RULES,
        held_out=HELD_OUT,
    )


def test_probabilities_are_those_of_the_plain_version() -> None:
    plain, model, other = Plain(corpus()), trained("good"), trained("bad")
    assert model.biases[0] == pytest.approx(plain.bias, abs=1e-5)
    assert model.calibration.slope == pytest.approx(plain.slope, rel=1e-3)
    assert model.calibration.offset == pytest.approx(plain.offset, abs=1e-3)
    for text, _ in corpus():
        assert model.score(text) == pytest.approx(plain.score(text), abs=2e-4)
        assert other.score(text) == pytest.approx(1 - plain.score(text), abs=2e-4)
        assert model.scores(text)["bad"] == pytest.approx(other.score(text))


def test_figures_are_those_of_the_plain_version() -> None:
    plain, held = Plain(corpus()), trained("good").facts["held_out"]
    truth = [label for _, label in plain.tested]
    p = [plain.score(text) for text, _ in plain.tested]
    assert held["documents"] == {"bad": truth.count(0), "good": truth.count(1)}
    right = [(score > 0.5) == bool(label) for score, label in zip(p, truth, strict=True)]
    assert held["accuracy"] == sum(right) / len(right)
    losses = [-math.log(s if label else 1 - s) for s, label in zip(p, truth, strict=True)]
    assert held["log_loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-3)
