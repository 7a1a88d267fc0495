"""The classifier stage: what it learns, writes and refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import classifier
from megatron_jobs.text.linear_model import load_classifier
from tests.unit.text.test_linear_model import texts_of


def corpus(folder: Path, name: str, label: str, count: int = 200, **fields: Any) -> Path:
    path = folder / f"{name}.jsonl"
    lines = [json.dumps({"text": text} | fields) for text in texts_of(label, count)]
    path.write_text("\n".join([*lines, "{none"]))
    return path


def settings(folder: Path, **changed: Any) -> classifier.Config:
    given: dict[str, Any] = {
        "positive": [corpus(folder, "p", "good", source="books", licence="CC0-1.0")],
        "negative": [corpus(folder, "n", "bad", source="mail")],
        "bits": 12,
        "held_out": 0.3,
    }
    return classifier.Config(**(given | changed))


def test_it_learns_and_says_from_what(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert list(config.problems()) == []
    numbers = classifier.run(config, Rank(), tmp_path / "out")
    assert numbers["documents"] == 400
    assert numbers["learnt_from"] + numbers["held_out"] < 400  # some calibrate
    assert numbers["accuracy"] > 0.9
    model = load_classifier(tmp_path / "out/classifier")
    assert model.score("a quiet river") > 0.5 > model.score("free cash prize")
    origin = model.facts["trained_on"]["positive"]
    assert origin["inputs"] == ["p.jsonl"]
    assert origin["licences"] == {"CC0-1.0": 200}
    assert origin["sources"] == {"books": 200}
    assert origin["quarantined"] == {"not JSON": 1}
    assert (origin["documents"], origin["taken"], origin["sampled_share"]) == (200, 200, 1.0)
    assert model.facts["trained_on"]["negative"]["sources"] == {"mail": 200}
    assert classifier.run(config, replace(Rank(), index=1, world=2), tmp_path / "no") == {}
    assert not (tmp_path / "no").exists()


def test_the_same_for_any_order_and_any_threads(tmp_path: Path) -> None:
    config = settings(tmp_path, threads=1)
    classifier.run(config, Rank(), tmp_path / "one")
    for name in ("p", "n"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(reversed(path.read_text().split("\n"))))
    again = config.model_copy(update={"threads": 3})
    classifier.run(again, Rank(), tmp_path / "two")
    assert tree_hash(tmp_path / "one/classifier") == tree_hash(tmp_path / "two/classifier")


def test_texts_of_two_labels_teach_nothing(tmp_path: Path) -> None:
    both = tmp_path / "both.jsonl"
    both.write_text("\n".join(json.dumps({"text": text}) for text in texts_of("good", 5)))
    negative = [corpus(tmp_path, "n", "bad"), both]
    classifier.run(settings(tmp_path, negative=negative), Rank(), tmp_path / "out")
    facts = load_classifier(tmp_path / "out/classifier").facts
    assert facts["in_several_labels"] == 5
    assert facts["trained_on"]["positive"]["taken"] == 195
    with pytest.raises(UserError, match="negative: found no document that no other label has"):
        classifier.run(settings(tmp_path, negative=[both]), Rank(), tmp_path / "out")


def test_several_labels(tmp_path: Path) -> None:
    labels = {name: [corpus(tmp_path, name, name)] for name in ("code", "good", "bad")}
    config = settings(tmp_path, positive=[], negative=[], labels=labels, wanted="good")
    classifier.run(config, Rank(), tmp_path / "out")
    model = load_classifier(tmp_path / "out/classifier")
    assert model.labels == ("code", "good", "bad")
    assert model.scores("yield return lambda")["code"] == max(
        model.scores("yield return lambda").values()
    )
    assert set(model.facts["held_out"]["recall"]) == set(labels)
    two = {name: labels[name] for name in ("good", "bad")}
    assert list(config.model_copy(update={"labels": two}).corpora()) == ["bad", "good"]


def test_little_memory_takes_a_sample(tmp_path: Path) -> None:
    config = settings(tmp_path, memory_gb=5e-5)
    classifier.run(config, Rank(), tmp_path / "out")
    origin = load_classifier(tmp_path / "out/classifier").facts["trained_on"]["positive"]
    assert origin["sampled_share"] < 1
    assert 0 < origin["taken"] < 200
    assert origin["ngrams"] * 8 * 2 <= 50_000


def test_what_cannot_work(tmp_path: Path) -> None:
    good = settings(tmp_path)

    def problems(**changed: Any) -> list[tuple[str, str]]:
        return list(good.model_copy(update=changed).problems())

    path = tmp_path / "p.jsonl"
    assert problems(positive=()) == [
        ("positive", "needs files, and so does negative; or give labels")
    ]
    assert problems(labels={"a": (path,), "b": (path,)}) == [
        ("labels", "is given beside positive and negative; give one or the other")
    ]
    only = {"positive": (), "negative": ()}
    assert problems(labels={"a": (path,)}, **only) == [
        ("labels", "needs two labels or more, each with files")
    ]
    assert problems(labels={"a": (path,), "b": ()}, **only)[0][0] == "labels"
    assert problems(wanted="x") == [("wanted", "found 'x', which is no label: positive, negative")]
    assert problems(order=6, bits=40, held_out=1.0, epochs=0, rate=0.0, threads=-1) == [
        ("order", "6 must be from 1 to 5"),
        ("bits", "40 must be from 8 to 28"),
        ("held_out", "1.0 must be from 0 to 0.9"),
        ("epochs", "0 must be positive"),
        ("rate", "0.0 must be positive"),
        ("threads", "-1 is negative; 0 takes all cores"),
    ]


def test_what_is_shown(tmp_path: Path) -> None:
    shown = list(classifier.describe(settings(tmp_path, bits=20), classifier.RESOURCES))
    assert shown == [("classifier", "negative, positive; 4 MB of weights")]
