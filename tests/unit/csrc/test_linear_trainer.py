"""A linear model's training and scores, against a slow version in plain numbers."""

import math

import numpy as np
import pytest

from megatron_jobs._ngrams import LinearScorer, LinearTrainer, gram_buckets

BITS = 8


class Slow:
    """AdaGrad one n-gram at a time, with gradients of the weights before the batch."""

    def __init__(self, columns: int) -> None:
        self.w = np.zeros((2**BITS, columns), np.float32)
        self.s = np.zeros((2**BITS, columns), np.float32)
        self.b, self.t = np.zeros(columns, np.float32), np.zeros(columns, np.float32)

    def z(self, features: np.ndarray) -> np.ndarray:
        scale = 1 / math.sqrt(len(features)) if len(features) else 0
        return self.b + scale * sum((self.w[f] for f in features), np.zeros(len(self.b)))

    def slope(self, z: np.ndarray, label: int) -> tuple[float, np.ndarray]:
        if len(z) == 1:
            p = 1 / (1 + math.exp(-z[0]))
            return -math.log(p if label else 1 - p), np.array([p - label])
        p = np.exp(z) / np.exp(z).sum()
        return -math.log(p[label]), p - np.eye(len(z))[label]

    def epoch(self, documents, labels, factors, order, rate: float, batch: int) -> float:
        losses = []
        for at in range(0, len(order), batch):
            which = order[at : at + batch]
            slopes = [self.slope(self.z(documents[i]), labels[i]) for i in which]
            losses += [loss for loss, _ in slopes]
            for i, (_, g) in zip(which, slopes, strict=True):
                g = (g * factors[i]).astype(np.float32)
                self.t += g * g
                self.b -= rate * g / np.sqrt(self.t + np.float32(1e-8))
                for f in documents[i]:
                    gf = g / np.float32(math.sqrt(len(documents[i])))
                    self.s[f] += gf * gf
                    self.w[f] -= rate * gf / np.sqrt(self.s[f] + np.float32(1e-8))
        return float(np.mean(losses))


def examples(labels: int, count: int = 50):
    draw = np.random.default_rng(labels)
    documents = [
        np.sort(draw.integers(0, 2**BITS, size=draw.integers(0, 30))).astype(np.uint32)
        for _ in range(count)
    ]
    starts = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    found = draw.integers(0, labels, count).astype(np.int32)
    factors = draw.uniform(0.5, 2, count).astype(np.float32)
    return documents, np.concatenate(documents), starts, found, factors


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_training_is_that_of_the_slow_version(labels: int) -> None:
    documents, features, starts, found, factors = examples(labels)
    columns = 1 if labels == 2 else labels
    trainer, slow = LinearTrainer(bits=BITS, columns=columns), Slow(columns)
    for epoch in range(3):
        order = np.random.default_rng(epoch).permutation(len(found)).astype(np.int64)
        loss = trainer.epoch(features, starts, found, factors, order, rate=0.3, batch=7)
        assert loss == pytest.approx(slow.epoch(documents, found, factors, order, 0.3, 7), rel=1e-5)
    assert trainer.weights() == pytest.approx(slow.w, abs=1e-4)
    assert trainer.biases() == pytest.approx(slow.b, abs=1e-5)


@pytest.mark.parametrize("labels", [2, 4])
def test_threads_change_nothing(labels: int) -> None:
    _, features, starts, found, factors = examples(labels, 300)
    results = []
    for threads in (1, 2, 5):
        trainer = LinearTrainer(bits=BITS, columns=1 if labels == 2 else labels)
        order = np.arange(300, dtype=np.int64)
        trainer.epoch(features, starts, found, factors, order, rate=0.1, batch=64, threads=threads)
        results.append((trainer.weights().tobytes(), trainer.biases().tobytes()))
    assert results[0] == results[1] == results[2]


def test_scores_are_sums_of_weights() -> None:
    draw = np.random.default_rng(0)
    weights = draw.normal(size=(2**BITS, 3)).astype(np.float32)
    biases = np.array([0.5, -1, 2], dtype=np.float32)
    scorer = LinearScorer(weights.reshape(-1), biases, bits=BITS, order=2, limit=1000)
    texts = ["", "one", "The cat sat on the mat, twice.", "x " * 700]
    for text, row in zip(texts, scorer.score_many(texts, threads=3), strict=True):
        found = gram_buckets(text, bits=BITS, order=2, limit=1000)
        wanted = biases + weights[found].sum(axis=0, dtype=np.float64) / math.sqrt(
            max(len(found), 1)
        )
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-4)
        assert scorer.score(text) == row.tolist()


def test_what_cannot_be_learnt() -> None:
    _, features, starts, found, factors = examples(2, 4)
    order = np.arange(4, dtype=np.int64)
    trainer = LinearTrainer(bits=BITS, columns=1)

    def learn(message: str, batch: int = 4, **changed: object) -> None:
        given = {"features": features, "starts": starts, "labels": found, "importance": factors}
        given |= {"order": order} | changed
        with pytest.raises(ValueError, match=message):
            trainer.epoch(**given, rate=0.1, batch=batch)  # type: ignore[arg-type]

    learn("starts must have 5 items, one more than labels, got 4", starts=starts[:4])
    learn("importance must have 4 items, got 3", importance=factors[:3])
    learn("starts must go from 0 to the number of features", starts=starts + 1)
    learn("starts must ascend", starts=starts[[0, 3, 1, 2, 4]])
    learn("labels must be below 2, found 2", labels=found + 2 - found)
    learn("features must be below 256, found 256", features=features * 0 + np.uint32(256))
    learn("order must name documents below 4, found 4", order=order + 1)
    learn("batch must be at least 1, got 0", batch=0)
    with pytest.raises(ValueError, match="columns must be 1, or 3 and more, got 2"):
        LinearTrainer(bits=BITS, columns=2)
    with pytest.raises(ValueError, match="weights must have 256 items, got 3"):
        LinearScorer(np.zeros(3, np.float32), np.zeros(1, np.float32), bits=8, order=1, limit=1)
    with pytest.raises(ValueError, match="biases must not be empty"):
        LinearScorer(np.zeros(3, np.float32), np.zeros(0, np.float32), bits=8, order=1, limit=1)
