"""Rules by models that the suite has trained: a classifier, a model of n-grams."""

import json
import shutil
from pathlib import Path

import pytest

from megatron_jobs.config.build import build_settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import classifier, perplexity_model
from megatron_jobs.text.filters.classifier import Classifier
from megatron_jobs.text.filters.judging import Judging
from megatron_jobs.text.filters.perplexity import Perplexity
from megatron_jobs.text.filters.quality import Quality
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict
from tests.unit.text.filters.judged import problems_of, verdict_of

GOOD = ["the keeper climbed the stairs", "he wrote about the sea", "the storm broke a window"]
BAD = ["buy cheap pills now", "click here to win money", "cheap money, click now"]


def corpus(path: Path, texts: list[str], copies: int) -> str:
    """Records that say the texts in turns, each with a number."""
    lines = [json.dumps({"text": f"{text} {i}"}) for i in range(copies) for text in texts]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both models, of good and bad texts."""
    folder = tmp_path_factory.mktemp("models")
    good, bad = corpus(folder / "g.jsonl", GOOD, 50), corpus(folder / "b.jsonl", BAD, 50)
    settings, problems = build_settings(
        classifier.Config, {"positive": [good], "negative": [bad], "bits": 12, "threads": 1}
    )
    assert settings is not None, problems
    classifier.run(settings, Rank(), folder)
    given = {"input": [good], "judged": [good, bad], "order": 2, "min_count": 1, "threads": 1}
    models, problems = build_settings(perplexity_model.Config, given | {"min_documents": 10})
    assert models is not None, problems
    perplexity_model.run(models, Rank(), folder)
    return folder


def test_a_classifier_writes_and_judges(trained: Path) -> None:
    rule = Classifier(model=trained / "classifier", min=0.5)
    good, bad = Record("", GOOD[0]), Record("", BAD[0])
    assert verdict_of(rule, good) is None
    assert good.metadata["quality"] > 0.5
    found = verdict_of(rule, bad)
    assert found == ("classifier.too_low_quality", bad.metadata["quality"], 0.5)
    toxic = Classifier(model=trained / "classifier", metadata="prose", max=0.5)
    assert verdict_of(toxic, Record("", BAD[0])) is None
    assert verdict_of(toxic, good) == ("classifier.too_high_prose", good.metadata["prose"], 0.5)
    assert verdict_of(Classifier(model=trained / "classifier"), Record("", BAD[0])) is None


def test_perplexity_writes_and_judges(trained: Path) -> None:
    rule = Perplexity(model=trained / "perplexity", keep=("head", "middle"))
    good, bad = Record("", GOOD[0]), Record("", "pills " + BAD[0])
    assert verdict_of(rule, good) is None
    assert good.metadata["perplexity_bucket"] in ("head", "middle")
    found = verdict_of(rule, bad)
    assert found == ("perplexity.tail", bad.metadata["perplexity"], ["head", "middle"])
    assert good.metadata["perplexity"] < bad.metadata["perplexity"]
    limited = Perplexity(model=trained / "perplexity", min=1.0, max=good.metadata["perplexity"] + 1)
    assert verdict_of(limited, good) is None
    assert (verdict_of(limited, bad) or ("",))[0] == "perplexity.too_high_perplexity"
    assert verdict_of(rule, Record("", "")) == ("perplexity.no_words", 0, 1)


def test_perplexity_of_a_model_without_quantiles(trained: Path, tmp_path: Path) -> None:
    """Limits need none; to tell head from tail does, which is said before a record is read."""
    model = tmp_path / "perplexity"
    shutil.copytree(trained / "perplexity", model)
    facts = model / "facts.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"quantiles": {}}))
    record = Record("", GOOD[0])
    assert verdict_of(Perplexity(model=model, max=1e6), record) is None
    assert list(record.metadata) == ["perplexity"]
    with pytest.raises(UserError, match=r"keep: found head, but .* has no quantiles to tell them"):
        Perplexity(model=model, keep=("head",)).prepare()


def test_all_of_them_make_a_score_of_quality(trained: Path, tmp_path: Path) -> None:
    """Perplexity, toxicity by a classifier whose label are the bad texts, diversity."""
    good, bad = (str(trained / name) for name in ("g.jsonl", "b.jsonl"))
    settings, problems = build_settings(
        classifier.Config, {"positive": [bad], "negative": [good], "bits": 12, "threads": 1}
    )
    assert settings is not None, problems
    classifier.run(settings, Rank(), tmp_path)
    rules = [
        Perplexity(model=trained / "perplexity"),
        Classifier(model=tmp_path / "classifier", metadata="toxicity"),
        Quality(best_perplexity=2, worst_perplexity=200, min=0.5),
    ]
    judging = Judging(rules)
    kept = judging.treat(Record("", GOOD[0]))
    assert isinstance(kept, Record)
    assert 0.5 < kept.metadata["quality_score"] <= 1
    rejected = judging.treat(Record("", "money money money, click now now now"))
    assert isinstance(rejected, Verdict)
    assert rejected.rule == "quality.too_low_quality_score"


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        Classifier(model=tmp_path).prepare()
    with pytest.raises(UserError):
        Perplexity(model=tmp_path).prepare()
    assert problems_of(Classifier, model=str(tmp_path), min=1.5) == [
        ("min", "1.5 must be from 0 to 1")
    ]
    assert problems_of(Perplexity, model=str(tmp_path), keep=[]) == [
        ("keep", "found none, must name at least one of head, middle, tail")
    ]
