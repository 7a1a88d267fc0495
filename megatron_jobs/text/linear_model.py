"""A linear classifier of texts over hashed n-grams of words, as stage `classifier` writes it.

A folder with weights.npy (float32 [buckets, columns]) and facts.json. Shape letters: B buckets,
C columns (1 for two labels, else one a label).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._ngrams import GRAMS_VERSION, WORDS_VERSION, LinearScorer
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json, write_json

FACTS, WEIGHTS = "facts.json", "weights.npy"
FORMAT = 1


@dataclass(frozen=True)
class Features:
    """How a text becomes buckets; what a model must be used with as it was trained."""

    bits: int = 20
    """2^bits buckets."""
    order: int = 2
    """Words in the longest n-gram."""
    limit: int = 1 << 16
    """Bytes of a text that are looked at, from its beginning."""


@dataclass(frozen=True)
class Calibration:
    """Probabilities from scores z: of softmax(slope z), or sigmoid(slope z + offset) of two labels.

    Source: Platt 1999, "Probabilistic outputs for support vector machines"; Guo et al. 2017,
        arXiv:1706.04599 (temperature).
    """

    slope: float = 1.0
    offset: float = 0.0

    def probability(self, z: float) -> float:
        """Of the second of two labels; of one text as of many, to the last bit."""
        power = -(self.slope * z + self.offset)
        return 1 / (1 + math.exp(power)) if power < 700 else 0.0

    def probabilities(self, z_TC: NDArray[np.float64]) -> NDArray[np.float64]:
        """[texts, labels]; of two labels the second is the one that z speaks for."""
        if z_TC.shape[1] == 1:
            p_T = np.array([self.probability(z) for z in z_TC[:, 0].tolist()], dtype=np.float64)
            return np.stack([1 - p_T, p_T], axis=1)
        z_TC = self.slope * z_TC
        e_TC = np.exp(z_TC - z_TC.max(axis=1, keepdims=True))
        return np.asarray(e_TC / e_TC.sum(axis=1, keepdims=True))


class LinearModel:
    """Says how probably a text has a label.

    Args:
        labels: names; of two, the weights speak for the second.
        positive: the one whose probability is the score.
        weights: float32 [B, C].
        biases: float32 [C].
        facts: whatever else is known of it.
    """

    def __init__(
        self,
        labels: Sequence[str],
        positive: str,
        *,
        weights: NDArray[np.float32],
        biases: NDArray[np.float32],
        features: Features,
        calibration: Calibration,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.labels, self.positive = tuple(labels), positive
        self.weights, self.biases = weights, biases
        self.features, self.calibration = features, calibration
        self.facts = facts or {}
        self._place = self.labels.index(positive)
        flat = weights.reshape(-1)
        self._scorer = LinearScorer(
            flat, biases, bits=features.bits, order=features.order, limit=features.limit
        )

    def score(self, text: str) -> float:
        """Probability of the positive label, from 0 to 1."""
        z = self._scorer.score(text)
        if len(z) > 1:
            return float(self.calibration.probabilities(np.array([z]))[0, self._place])
        p = self.calibration.probability(z[0])
        return p if self._place else 1 - p

    def scores(self, text: str) -> dict[str, float]:
        """Probability of each label."""
        p = self.calibration.probabilities(np.array([self._scorer.score(text)]))[0]
        return dict(zip(self.labels, p.tolist(), strict=True))

    def score_many(self, texts: Sequence[str], *, threads: int = 1) -> NDArray[np.float64]:
        """What `score` gives for each of many texts: [texts]."""
        return self.probabilities(texts, threads=threads)[:, self._place]

    def probabilities(self, texts: Sequence[str], *, threads: int = 1) -> NDArray[np.float64]:
        """Of each label, for each text: [texts, labels]."""
        return self.calibration.probabilities(self.raw_scores(texts, threads=threads))

    def raw_scores(self, texts: Sequence[str], *, threads: int = 1) -> NDArray[np.float64]:
        """z [texts, C], before calibration."""
        return self._scorer.score_many(list(texts), threads=threads)


def save_classifier(model: LinearModel, folder: Path) -> None:
    """Write a model's files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / WEIGHTS, model.weights)
    about = {
        "format": FORMAT,
        "words_version": WORDS_VERSION,
        "grams_version": GRAMS_VERSION,
        "labels": list(model.labels),
        "positive": model.positive,
        "features": vars(model.features),
        "biases": [float(b) for b in model.biases],
        "calibration": vars(model.calibration),
    }
    write_json(folder / FACTS, about | model.facts)


def load_classifier(path: Path) -> LinearModel:
    """The classifier in a folder that stage `classifier` wrote; its weights are mapped, not read.

    Raises: UserError when there is none, or one of another version; DataError when it is damaged.
    """
    if not (path / FACTS).is_file():
        raise UserError(
            f"{path}: no {FACTS} in it; name the `classifier` folder of a classifier job"
        )
    facts = read_json(path / FACTS)
    for name, known in (
        ("format", FORMAT),
        ("words_version", WORDS_VERSION),
        ("grams_version", GRAMS_VERSION),
    ):
        if facts.get(name) != known:
            found = f"{name} {facts.get(name)}, this version knows {known}"
            raise UserError(f"{path}: found a classifier of {found}; train it again")
    try:
        weights = np.load(path / WEIGHTS, mmap_mode="r")
        return LinearModel(
            facts["labels"],
            facts["positive"],
            weights=weights,
            biases=np.array(facts["biases"], dtype=np.float32),
            features=Features(**facts["features"]),
            calibration=Calibration(**facts["calibration"]),
            facts=facts,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: found a damaged classifier: {error}; copy it again") from error
