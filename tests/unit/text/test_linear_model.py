"""Classifiers: trained, calibrated, judged, saved and loaded."""

import json
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs._ngrams import gram_buckets
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.hashed_sample import text_key
from megatron_jobs.text.linear_model import (
    Calibration,
    Features,
    LinearModel,
    load_classifier,
    save_classifier,
)
from megatron_jobs.text.linear_training import (
    Documents,
    FitRules,
    area_under_curve,
    build_model,
    calibrate,
    importance,
    judge,
)

FEATURES = Features(bits=12)
WORDS = {
    "good": "river garden letter evening quiet story walk window".split(),  # noqa: SIM905
    "bad": "cheap offer click winner cash free urgent prize".split(),  # noqa: SIM905
    "code": "return import class while lambda yield print assert".split(),  # noqa: SIM905
}


def texts_of(label: str, count: int, noise: float = 0.4) -> list[str]:
    """Texts of a label's own words, and some of all."""
    draw = np.random.default_rng(len(label))
    every = [word for words in WORDS.values() for word in words]
    return [
        " ".join(
            draw.choice(every if draw.random() < noise else WORDS[label])
            for _ in range(draw.integers(5, 30))
        )
        + f" {i}"
        for i in range(count)
    ]


def documents_of(labels: list[str], count: int) -> Documents:
    return Documents.join(
        (text_key(text), place, gram_buckets(text, **vars(FEATURES)))
        for place, label in enumerate(labels)
        for text in texts_of(label, count)
    )


def model_of(labels: list[str], count: int = 300, **rules: object) -> LinearModel:
    return build_model(
        documents_of(labels, count),
        names=labels,
        positive=labels[-1],
        features=FEATURES,
        rules=FitRules(**rules),  # type: ignore[arg-type]
        held_out=0.4,
    )


@pytest.mark.parametrize("labels", [["bad", "good"], ["bad", "code", "good"]])
def test_a_label_is_recognised(labels: list[str], tmp_path: Path) -> None:
    model = model_of(labels)
    held = model.facts["held_out"]
    assert held["accuracy"] > 0.95
    assert held["auc"] > 0.99
    assert model.score("a quiet evening walk by the river") > 0.9
    assert model.score("urgent: free cash, click now") < 0.1
    assert sum(model.scores("a letter").values()) == pytest.approx(1)
    save_classifier(model, tmp_path)
    loaded = load_classifier(tmp_path)
    texts = texts_of("good", 20) + texts_of("bad", 20)
    assert loaded.score_many(texts, threads=3).tolist() == [loaded.score(text) for text in texts]
    assert loaded.score_many(texts) == pytest.approx(model.score_many(texts))
    assert (loaded.labels, loaded.positive) == (tuple(labels), "good")


def test_training_twice_gives_the_same_for_any_threads() -> None:
    one, other = model_of(["bad", "good"], threads=1), model_of(["bad", "good"], threads=3)
    assert one.weights.tobytes() == other.weights.tobytes()
    assert one.calibration == other.calibration
    assert model_of(["bad", "good"], seed=1).weights.tobytes() != one.weights.tobytes()


def test_balance_makes_labels_count_alike() -> None:
    labels = np.array([0] * 90 + [1] * 10, dtype=np.int32)
    factors = importance(labels, 2, balance=True)
    assert factors[:90].sum() == pytest.approx(50)
    assert factors[90:].sum() == pytest.approx(50)
    assert importance(labels, 2, balance=False).tolist() == [1] * 100


def test_what_is_held_out_is_not_learnt_from() -> None:
    documents = documents_of(["bad", "good"], 200)
    learn, tune, test = documents.split(0.3)
    assert len(learn) + len(tune) + len(test) == len(documents.labels)
    assert set(learn) | set(tune) | set(test) == set(range(len(documents.labels)))
    assert 30 < len(tune) < 90
    assert 30 < len(test) < 90
    assert [len(part) for part in documents.split(0)[1:]] == [0, 0]


def test_area_under_curve_is_the_share_of_pairs() -> None:
    draw = np.random.default_rng(0)
    p, truth = draw.integers(0, 10, 60) / 10, draw.random(60) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in p[truth] for b in p[~truth]]
    assert area_under_curve(p, truth) == pytest.approx(np.mean(pairs))
    assert area_under_curve(p, truth | True) is None


def test_figures_at_a_threshold() -> None:
    p = np.array([0.05, 0.35, 0.45, 0.65, 0.95])
    labels = np.array([0, 1, 0, 1, 1], dtype=np.int32)
    found = judge(np.stack([1 - p, p], axis=1), labels, names=["no", "yes"], positive="yes")
    assert found["documents"] == {"no": 2, "yes": 3}
    assert found["accuracy"] == 0.8
    at = {row["threshold"]: row for row in found["thresholds"]}
    assert (at[0.4]["precision"], at[0.4]["recall"], at[0.4]["kept"]) == (2 / 3, 2 / 3, 0.6)
    assert at[0.7]["precision"] == 1
    none = judge(np.zeros((0, 2)), labels[:0], names=["no", "yes"], positive="yes")
    assert none == {"documents": {"no": 0, "yes": 0}}


def test_calibrated_probabilities_are_frequencies() -> None:
    """Scores three times too steep, and off by one, are put right."""
    draw = np.random.default_rng(1)
    true_z = draw.normal(size=20000) * 2
    labels = (draw.random(20000) < 1 / (1 + np.exp(-true_z))).astype(np.int32)
    found = calibrate((3 * true_z + 1)[:, None], labels, np.ones(20000, np.float32))
    assert found.slope == pytest.approx(1 / 3, abs=0.02)
    assert found.offset == pytest.approx(-1 / 3, abs=0.06)
    z_DC = draw.normal(size=(20000, 3)) * 2
    p = np.exp(z_DC) / np.exp(z_DC).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) > draw.random(20000)[:, None]).argmax(axis=1).astype(np.int32)
    found = calibrate(z_DC * 4, labels, np.ones(20000, np.float32))
    assert found.slope == pytest.approx(1 / 4, rel=0.06)


def test_a_perfect_score_gets_no_infinite_slope() -> None:
    z, labels = np.array([[-9.0], [-8], [7], [9]]), np.array([0, 0, 1, 1], dtype=np.int32)
    found = calibrate(z, labels, np.ones(4, np.float32))
    assert 0 < found.slope < 5
    assert calibrate(z[:0], labels[:0], np.ones(0, np.float32)) == Calibration()
    upside_down = calibrate(-z, labels, np.ones(4, np.float32))
    assert upside_down == Calibration()


def test_what_is_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no facts.json in it; name the `classifier` folder"):
        load_classifier(tmp_path)
    save_classifier(model_of(["bad", "good"], count=20), tmp_path)
    facts = json.loads((tmp_path / "facts.json").read_text())
    (tmp_path / "facts.json").write_text(json.dumps(facts | {"words_version": 99}))
    message = r"found a classifier of words_version 99, this version knows 1; train it again$"
    with pytest.raises(UserError, match=message):
        load_classifier(tmp_path)
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    np.save(tmp_path / "weights.npy", np.zeros(3, np.float32))
    with pytest.raises(DataError, match=r"damaged classifier: weights must have 4096 items, got 3"):
        load_classifier(tmp_path)
