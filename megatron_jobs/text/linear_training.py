"""Training and judging a linear classifier (`linear_model`).

Shape letters: D documents, F features of all of them end to end, C columns, L labels.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._ngrams import LinearTrainer
from megatron_jobs.text.hashed_sample import is_held_out
from megatron_jobs.text.linear_model import Calibration, Features, LinearModel

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NEWTON_STEPS = 50


@dataclass(frozen=True)
class FitRules:
    """How the weights are found."""

    epochs: int = 20
    """Times that each document is seen."""
    rate: float = 0.1
    """AdaGrad's, at the beginning; it falls to 0 in a straight line, by epochs."""
    batch: int = 64
    """Documents whose gradients are of the same weights."""
    balance: bool = True
    """Whether all labels count alike, however many documents each has."""
    seed: int = 0
    """Of the order of the documents."""
    threads: int = 1
    """The result does not depend on it."""


@dataclass(frozen=True)
class Documents:
    """Documents as features, with their labels."""

    keys: NDArray[np.uint64]
    """[D], of `hashed_sample.text_key`; ascending."""
    features: NDArray[np.uint32]
    """[F]; ascending within a document."""
    starts: NDArray[np.int64]
    """[D + 1] in features."""
    labels: NDArray[np.int32]
    """[D]"""

    @classmethod
    def join(cls, found: Iterable[tuple[int, int, NDArray[np.uint32]]]) -> "Documents":
        """Of (key, label, features of the document), in any order."""
        rows = sorted(found, key=lambda row: row[0])
        sizes = np.array([len(row[2]) for row in rows], dtype=np.int64)
        features = [row[2] for row in rows]
        return cls(
            np.array([row[0] for row in rows], dtype=np.uint64),
            np.concatenate(features) if features else np.zeros(0, dtype=np.uint32),
            np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)]),
            np.array([row[1] for row in rows], dtype=np.int32),
        )

    def split(self, share: float) -> "tuple[Roles, Roles, Roles]":
        """Numbers of the documents to learn from, to calibrate by, and to judge by.

        Half of the `share` that is held out is for each of the latter.
        """
        keys = [int(key) for key in self.keys]
        held = np.array([is_held_out(key, share) for key in keys], dtype=bool)
        judge = np.array([is_held_out(key, share / 2) for key in keys], dtype=bool)
        return np.flatnonzero(~held), np.flatnonzero(held & ~judge), np.flatnonzero(judge)

    def raw_scores(
        self, which: "Roles", weights: NDArray[np.float32], biases: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """z [documents, C] of some of them."""
        z_DC = np.tile(biases.astype(np.float64), (len(which), 1))
        for row, document in enumerate(which):
            found = self.features[self.starts[document] : self.starts[document + 1]]
            if len(found):
                z_DC[row] += weights[found].sum(axis=0, dtype=np.float64) / np.sqrt(len(found))
        return z_DC


Roles = NDArray[np.int64]
"""Numbers of documents."""


def importance(labels: NDArray[np.int32], count: int, *, balance: bool) -> NDArray[np.float32]:
    """Factor of each document's gradient, 1 on average: of all labels the same sum, or 1 each."""
    if not balance or not len(labels):
        return np.ones(len(labels), dtype=np.float32)
    sizes = np.maximum(np.bincount(labels, minlength=count), 1)
    factors = len(labels) / (count * sizes)
    return np.asarray(factors[labels], dtype=np.float32)


@dataclass(frozen=True)
class Fitted:
    """What training found."""

    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    losses: list[float]
    """Mean loss of each epoch, of the documents as they came."""


def fit(
    documents: Documents,
    which: Roles,
    *,
    labels: int,
    bits: int,
    rules: FitRules,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Fitted:
    """Learn from some of the documents; the same for any number of threads."""
    trainer = LinearTrainer(bits=bits, columns=1 if labels == 2 else labels)
    factors = np.zeros(len(documents.labels), dtype=np.float32)
    factors[which] = importance(documents.labels[which], labels, balance=rules.balance)
    random = np.random.default_rng(rules.seed)
    losses = []
    for epoch in range(rules.epochs):
        loss = trainer.epoch(
            documents.features,
            documents.starts,
            documents.labels,
            factors,
            random.permutation(which).astype(np.int64),
            rate=rules.rate * (1 - epoch / rules.epochs),
            batch=rules.batch,
            threads=rules.threads,
        )
        losses.append(loss)
        report(epoch + 1, loss)
    return Fitted(trainer.weights(), trainer.biases(), losses)


def calibrate(
    z_DC: NDArray[np.float64], labels: NDArray[np.int32], factors: NDArray[np.float32]
) -> Calibration:
    """Slope (and offset) that make documents not learnt from most probable.

    Targets are Platt's, a little off 0 and 1, so that a perfect model gets no infinite slope.
    """
    if not len(labels):
        return Calibration()
    if z_DC.shape[1] == 1:
        return _platt(z_DC[:, 0], labels, factors.astype(np.float64))
    return _temperature(z_DC, labels, factors.astype(np.float64))


def _platt(
    z: NDArray[np.float64], labels: NDArray[np.int32], factors: NDArray[np.float64]
) -> Calibration:
    ones, zeros = int(labels.sum()), int(len(labels) - labels.sum())
    targets = np.where(labels == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    x = np.stack([z, np.ones_like(z)])
    at = np.array([1.0, 0.0])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(at @ x, -500, 500)))
        slope = x @ (factors * (p - targets))
        curve = (x * (factors * p * (1 - p))) @ x.T + 1e-9 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        at = at - np.clip(step, -1, 1)
        if float(np.abs(step).max()) < 1e-9:
            break
    return Calibration(float(at[0]), float(at[1])) if at[0] > 0 else Calibration()


def _temperature(
    z_DC: NDArray[np.float64], labels: NDArray[np.int32], factors: NDArray[np.float64]
) -> Calibration:
    count = z_DC.shape[1]
    targets = np.full(z_DC.shape, 1 / (len(labels) + count))
    targets[np.arange(len(labels)), labels] += 1 - targets.sum(axis=1)

    def loss(power: float) -> float:
        p = Calibration(slope=2.0**power).probabilities(z_DC)
        return float(-(factors[:, None] * targets * np.log(p + 1e-300)).sum())

    powers = np.linspace(-5, 5, 201)
    return Calibration(slope=float(2.0 ** powers[int(np.argmin([loss(p) for p in powers]))]))


def judge(
    p_DL: NDArray[np.float64], labels: NDArray[np.int32], *, names: Sequence[str], positive: str
) -> dict[str, Any]:
    """Figures on documents not learnt from: accuracy, AUC, precision and recall by threshold."""
    found: dict[str, Any] = {
        "documents": {name: int((labels == i).sum()) for i, name in enumerate(names)}
    }
    if not len(labels):
        return found
    place = list(names).index(positive)
    truth, p = labels == place, p_DL[:, place]
    right = p_DL[np.arange(len(labels)), labels]
    found["accuracy"] = float((p_DL.argmax(axis=1) == labels).mean())
    found["log_loss"] = float(-np.log(np.maximum(right, 1e-300)).mean())
    found["auc"] = area_under_curve(p, truth)
    found["thresholds"] = [_at_threshold(p, truth, t) for t in THRESHOLDS]
    if len(names) > 2:
        best = p_DL.argmax(axis=1)
        found["recall"] = {
            name: _ratio(int(((best == i) & (labels == i)).sum()), int((labels == i).sum()))
            for i, name in enumerate(names)
        }
    return found


def area_under_curve(p: NDArray[np.float64], truth: NDArray[np.bool_]) -> float | None:
    """Probability that a positive document scores above a negative one, ties counting half;
    None without one of each."""
    ones, zeros = int(truth.sum()), int((~truth).sum())
    if not ones or not zeros:
        return None
    _, places, counts = np.unique(p, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[places]
    return float((ranks[truth].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _at_threshold(
    p: NDArray[np.float64], truth: NDArray[np.bool_], threshold: float
) -> dict[str, float | None]:
    kept = p >= threshold
    hits = int((kept & truth).sum())
    return {
        "threshold": threshold,
        "precision": _ratio(hits, int(kept.sum())),
        "recall": _ratio(hits, int(truth.sum())),
        "kept": _ratio(int(kept.sum()), len(p)),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def build_model(
    documents: Documents,
    *,
    names: Sequence[str],
    positive: str,
    features: Features,
    rules: FitRules,
    held_out: float,
    report: Callable[[int, float], None] = lambda epoch, loss: None,
) -> LinearModel:
    """Train, calibrate and judge; what was found is in the model's facts."""
    learn, tune, test = documents.split(held_out)
    labels = documents.labels
    fitted = fit(
        documents, learn, labels=len(names), bits=features.bits, rules=rules, report=report
    )
    factors = importance(labels[tune], len(names), balance=rules.balance)
    z_DC = documents.raw_scores(tune, fitted.weights, fitted.biases)
    calibration = calibrate(z_DC, labels[tune], factors)
    p_DL = calibration.probabilities(documents.raw_scores(test, fitted.weights, fitted.biases))
    facts = {
        "learnt_from": len(learn),
        "losses": fitted.losses,
        "held_out": judge(p_DL, labels[test], names=names, positive=positive),
    }
    return LinearModel(
        names,
        positive,
        weights=fitted.weights,
        biases=fitted.biases,
        features=features,
        calibration=calibration,
        facts=facts,
    )
