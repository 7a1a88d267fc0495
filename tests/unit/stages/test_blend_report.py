"""The report of planted corpora: every number against what was planted and what samples read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.config.settings import all_problems
from megatron_jobs.data.trained_tokens import trained_sources
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import blend_report, index
from megatron_jobs.stages.blend_report import Config, SourceDocuments, Target
from tests.pages import Words
from tests.unit.data.test_ledger import open_ledger

HOSTILE = "<script>alert(1)</script>"
SENTENCE = "He saw her and a stupid Norwegian dog, very far from any other people at all."


def document(source: int, number: int) -> dict[str, Any]:
    """Source 0 is German of no licence, 1 English and CC-BY-SA, 2 both, of hostile names."""
    language = "de" if source == 0 or (source == 2 and number % 2) else "en"
    licence = ["", "CC-BY-SA-4.0", HOSTILE][source]
    return {
        "id": f"{source}-{number}",
        "text": SENTENCE if language == "en" else "Er sah einen Hund und sie.",
        "language": language,
        "licence": licence,
        "url": f"https://{'ab'[number % 2]}.org/{HOSTILE}",
        "date": f"20{source}{number % 2}-01-01",
    }


def settings(tmp_path: Path, packing: str = "none", **more: Any) -> Config:
    ledger = open_ledger(tmp_path, sources=3, packing=packing)
    documents = []
    for source, count in enumerate((20, 40, 60)):
        path = tmp_path / f"docs{source}.jsonl"
        lines = [json.dumps(document(source, number)) + "\n" for number in range(count)]
        path.write_text("".join(lines))
        documents.append(SourceDocuments(input=(path,), source=f"s{source}"))
    (tmp_path / "lists.yaml").write_text("groups: {nationality: {Norwegian: [norwegian]}}")
    given = {"lists": (tmp_path / "lists.yaml",), "examples": 1, "unit_mb": 0.002, **more}
    return Config(title=HOSTILE, index=ledger.index.folder, documents=tuple(documents), **given)


def report(tmp_path: Path, config: Config) -> dict[str, Any]:
    blend_report.run(config, Rank(), tmp_path / "out")
    facts: dict[str, Any] = json.loads((tmp_path / "out/blend_report.json").read_text())
    return facts


@pytest.mark.parametrize(("packing", "phases"), [("none", 0), ("best_fit", 0), ("none", 2)])
def test_what_training_reads_is_what_samples_hold(
    tmp_path: Path, packing: str, phases: int
) -> None:
    ledger = open_ledger(tmp_path, sources=3, packing=packing, phases=phases)
    train = ledger.index.split("train")
    read, size = [0, 0, 0], [0, 0, 0]
    for number in range(len(train)):
        source, _ = train.place(number)
        read[source] += 1
        size[source] += int((train[number] >= 0).sum())
    found = trained_sources(ledger.index.folder)
    assert [one.samples for one in found] == read
    for one, samples, tokens in zip(found, read, size, strict=True):
        most = samples * 32
        assert one.trained == pytest.approx(
            tokens * 32 / 33 if packing != "none" else most, rel=0.05
        )
    assert [one.path for one in found] == [tmp_path / f"source{i}.bin" for i in range(3)]


def test_every_number(tmp_path: Path) -> None:
    facts = report(tmp_path, settings(tmp_path))
    read = [25 * 32, 50 * 32, 75 * 32]  # of 150 samples, by weights 1, 2, 3
    english, german = len(SENTENCE), len("Er sah einen Hund und sie.")
    half = english / (english + german)
    assert facts["tokens"] == sum(read)
    assert facts["languages"] == pytest.approx(
        {"en": read[1] + read[2] * half, "de": read[0] + read[2] * (1 - half)}
    )
    assert facts["licence_groups"] == pytest.approx(
        {"unknown": read[0] + read[2], "share-alike": read[1]}
    )
    assert facts["unnamed_licence"] == pytest.approx(read[0])
    assert facts["sources"] == pytest.approx({"s2": read[2], "s1": read[1], "s0": read[0]})
    years = {"2020": read[2] * half, "2021": read[2] * (1 - half), "2000": read[0] / 2}
    assert {year: facts["years"][year] for year in years} == pytest.approx(years)
    assert facts["domain_entropy"]["domains"] == 2
    tokens = {part["name"]: part for part in facts["parts"]}
    weights = [one["trained"] / one["tokens"] for one in tokens.values()]
    words = 16 * (40 * weights[1] + 30 * weights[2])
    assert facts["words"] == pytest.approx(words)
    groups = {f"{g['category']}.{g['group']}": g for g in facts["groups"]}
    assert set(groups) == {"pronoun.he", "pronoun.she", "nationality.Norwegian"}
    for found in groups.values():
        assert found["per_million"] == pytest.approx(1e6 / 16)
        assert found["counted"] == 70
    near = {(a["group"], a["tone"]): a for a in facts["associations"]}
    she, norwegian = near["pronoun.she", "toxic"], near["nationality.Norwegian", "toxic"]
    assert (she["hits"], she["words"]) == (70, 70 * 12)
    assert (norwegian["hits"], norwegian["words"]) == (70, 70 * 15)
    assert she["near"] == pytest.approx(1e6 / 12)
    assert she["elsewhere"] == 0


def test_tasks_change_nothing(tmp_path: Path) -> None:
    config = settings(tmp_path)
    one = blend_report.run(config, Rank(), tmp_path / "one")
    tasks = [tmp_path / f"task{i}" for i in range(3)]
    for task, folder in enumerate(tasks):
        blend_report.run(config, replace(Rank(), task=task, tasks=3), folder)
    (tmp_path / "all").mkdir()
    assert blend_report.gather(config, tmp_path / "all", tasks) == one
    for name in blend_report.OUTPUTS:
        assert tree_hash(tmp_path / "all" / name) == tree_hash(tmp_path / "one" / name)
    assert len(list((tmp_path / "one/compositions").iterdir())) > 6


def test_the_page(tmp_path: Path) -> None:
    target = Target(property="language", shares={"en": 0.5}, floor=0.1)
    report(tmp_path, settings(tmp_path, target=target))
    words = Words((tmp_path / "out/blend_report.html").read_text())
    text = " ".join(" ".join(words.texts).split())
    assert words.tags.count("script") == 1  # our own, empty
    assert text.count(HOSTILE) == 3  # two titles, a licence
    assert "66.7 % of the tokens have a licence that is unknown: 16.7 % name none, 50.0 %" in text
    assert "Norwegian 62,500.0 · 100.0 %" in text
    assert "en 50.0 %" in text
    assert "stupid norwegian dog" in text


def test_the_suggestion_is_a_blend_that_meets_it(tmp_path: Path) -> None:
    target = Target(property="language", shares={"de": 0.6, "en": 0.4}, floor=0.1, stay=1e-6)
    found = report(tmp_path, settings(tmp_path, target=target))["suggestion"]
    assert found["suggested"] == pytest.approx({"de": 0.6, "en": 0.4}, abs=1e-3)
    assert min(one["suggested"] for one in found["weights"]) >= 0.1 - 1e-6
    wished = index.Config(
        **yaml.safe_load(found["yaml"]), seq_len=32, train_samples=1000, valid_samples=0
    )
    index.run(wished, Rank(), tmp_path)
    config = settings_of(tmp_path)
    languages = report(tmp_path, config)["languages"]
    assert languages["de"] / sum(languages.values()) == pytest.approx(0.6, abs=0.002)


def settings_of(tmp_path: Path) -> Config:
    """Of the index that stands there now."""
    documents = [SourceDocuments(input=(tmp_path / f"docs{i}.jsonl",)) for i in range(3)]
    return Config(index=tmp_path / "index", documents=tuple(documents))


def test_what_cannot_work(tmp_path: Path) -> None:
    config = settings(tmp_path)
    less = config.model_copy(update={"documents": config.documents[:2]})
    with pytest.raises(UserError) as caught:
        blend_report.run(less, Rank(), tmp_path / "out")
    assert str(caught.value) == (
        "documents: 2 given, the index has 3 sources (source0, source1, source2); "
        "give one entry for each, in this order"
    )
    target = Target(property="language", shares={"fr": 0.5})
    with pytest.raises(UserError, match=r"target.shares.fr: language 'fr' is in no source; found"):
        report(tmp_path, config.model_copy(update={"target": target}))
    target = Target(property="langauge", shares={"fr": 1})
    with pytest.raises(UserError) as caught:
        report(tmp_path, config.model_copy(update={"target": target}))
    assert str(caught.value) == (
        "target.property: found 'langauge', must be one of licence_group, language, licence, "
        "source, year, or a category that the texts speak of"
    )
    facts = json.loads((tmp_path / "index/index.json").read_text())
    facts["sources"][1]["text_bytes"] = 1000
    (tmp_path / "index/index.json").write_text(json.dumps(facts))
    with pytest.raises(UserError) as caught:
        report(tmp_path, config)
    assert str(caught.value) == (
        f"documents.1: found {40 * len(SENTENCE):,} bytes of text, source1 was made of 1,000; "
        "give what was tokenized, in the order of the index"
    )
    wrong = {
        "window": 0,
        "licence_groups": {"x": "free"},
        "target": Target(property="pronoun", shares={"he": 0.3}, floor=0.5, stay=0),
    }
    assert [name for name, _ in all_problems(config.model_copy(update=wrong))] == [
        "window",
        "licence_groups.x",
        "target.floor",
        "target.stay",
        "target.shares",
    ]
