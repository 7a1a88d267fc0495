"""The stage `filter`: languages and rules in turn; every rejected record keeps its verdict."""

import json
import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.config.build import build_settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import filter as stage
from megatron_jobs.text.filters.c4 import C4
from megatron_jobs.text.filters.fineweb import FineWeb
from megatron_jobs.text.filters.identify import Identify
from megatron_jobs.text.shards import read_shard, shards_below

PROSE = (
    "The keeper of the lighthouse had to climb the stairs with a lamp and that was hard work. "
    "Each evening he wrote into a book what the weather and the sea were like. "
    "Ships that passed were counted, and their flags were drawn with care. "
    "Nobody came to visit, yet he would have been glad of a guest. "
    "In winter the storms broke windows, which he had to mend with boards."
)
GERMAN = (
    "Der Wärter des Leuchtturms stieg jeden Abend mit einer Lampe die Treppe hinauf. "
    "Er schrieb in ein Buch, wie das Wetter und das Meer gewesen waren, und zählte die Schiffe."
)


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for shard in shards_below(folder / kind) for line in read_shard(shard)]


def filtered(tmp_path: Path, texts: dict[str, str], **settings: Any) -> dict[str, float]:
    source = tmp_path / "in.jsonl"
    lines = (json.dumps({"id": name, "text": text}) for name, text in texts.items())
    source.write_text("\n".join(lines))
    config, problems = build_settings(stage.Config, {"input": [str(source)], **settings})
    assert config is not None, problems
    return stage.run(config, Rank(), tmp_path / "out")


def test_first_verdict_is_the_records(tmp_path: Path) -> None:
    texts = {"good": PROSE, "german": GERMAN, "short": PROSE[:200], "same": f"{PROSE}\n" * 5}
    rules = [{"rule": "gopher_quality"}, {"rule": "gopher_repetition"}]
    numbers = filtered(tmp_path, texts, language={"languages": ["en"]}, rules=rules)
    kept, rejected = records(tmp_path / "out", "documents"), records(tmp_path / "out", "rejected")
    assert [record["id"] for record in kept] == ["good"]
    assert kept[0]["language"] == "en"
    assert kept[0]["metadata"]["language_score"] > 0.5
    assert {record["id"]: record["verdict"]["rule"] for record in rejected} == {
        "german": "identify.language",
        "short": "gopher_quality.too_few_words",
        "same": "gopher_repetition.repeated_lines",
    }
    assert rejected[0]["verdict"] == {
        "rule": "identify.language", "found": "de", "limit": ["en"]
    }  # fmt: skip
    assert (numbers["records_in"], numbers["documents"], numbers["rejected"]) == (4, 1, 3)


def test_all_verdicts_are_kept_when_asked_for(tmp_path: Path) -> None:
    rules = [{"rule": "gopher_quality"}, {"rule": "c4"}, {"rule": "fineweb"}]
    numbers = filtered(tmp_path, {"a": "word", "b": PROSE}, rules=rules, judge_all=True)
    rejected = records(tmp_path / "out", "rejected")
    assert [verdict["rule"] for verdict in rejected[0]["metadata"]["verdicts"]] == [
        "gopher_quality.too_few_words",
        "c4.too_few_sentences",
        "fineweb.punctuated_lines",
    ]
    assert rejected[0]["verdict"]["rule"] == "gopher_quality.too_few_words"
    assert numbers["judged.c4.too_few_sentences"] == 1


def test_what_is_rejected_is_what_was_judged(tmp_path: Path) -> None:
    """C4 takes lines out of what Gopher has rejected before; the rejected text has them."""
    text = "Home | About\nEnable JavaScript.\nA few words. And a few more. And then some.\n" * 3
    rules = [{"rule": "gopher_quality"}, {"rule": "c4", "min_sentences": 1}]
    filtered(tmp_path, {"a": text}, rules=rules, judge_all=True)
    rejected = records(tmp_path / "out", "rejected")
    assert rejected[0]["verdict"]["rule"] == "gopher_quality.too_few_words"
    assert rejected[0]["text"] == text


def test_removed_lines_are_counted(tmp_path: Path) -> None:
    text = "\n".join(
        [*PROSE.replace(". ", ".\n").split("\n"), "Home | About", "Enable JavaScript."]
    )
    numbers = filtered(tmp_path, {"a": text}, rules=[{"rule": "c4"}])
    assert records(tmp_path / "out", "documents")[0]["text"] == PROSE.replace(". ", ".\n")
    assert numbers["c4.lines_kept"] == 5
    assert numbers["c4.lines_removed.no_terminal_punctuation"] == 1
    assert numbers["c4.lines_removed.too_few_words"] == 1


def test_tiny_documents_take_no_memory(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"id":"{n // 2}","text":"a"}}\n' for n in range(40_000)))
    rules = [{"rule": "length", "min_words": 1}, {"rule": "gopher_quality", "min_words": 2}]
    config, problems = build_settings(stage.Config, {"input": [str(source)], "rules": rules})
    assert config is not None, problems
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    numbers = stage.run(config, Rank(), tmp_path / "out")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (numbers["records_in"], numbers["rejected"]) == (40_000, 40_000)
    assert grown < 48 << 10, f"{grown} KiB more"


def test_a_stage_without_rules_is_refused() -> None:
    config, problems = build_settings(stage.Config, {"input": ["in.jsonl"]})
    assert config is not None
    assert problems == [
        ("rules", "found none, must name at least one rule, or set `language`")
    ]  # fmt: skip


def test_a_rule_that_does_not_exist() -> None:
    rules = [{"rule": "c4", "min_sentence": 2}, {"rule": "gopher"}]
    _, problems = build_settings(stage.Config, {"input": ["in.jsonl"], "rules": rules})
    assert problems[0] == (
        "rules.0.min_sentence", "no such setting: 'min_sentence'; did you mean min_sentences?"
    )  # fmt: skip
    assert problems[1][0] == "rules.1.rule"
    assert problems[1][1].startswith("no such rule: 'gopher'; ")


def test_words_of_spacy_need_spacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError) as caught:
        filtered(tmp_path, {"a": PROSE}, rules=[{"rule": "fineweb"}], words="spacy")
    assert str(caught.value) == "words: spacy is not installed; pip install spacy, or words=own"


def test_what_is_shown_of_it() -> None:
    config = stage.Config(input=[Path("in")], language=Identify(), rules=(C4(), FineWeb()))
    assert stage.describe(config, stage.RESOURCES) == [("rules", "identify, c4, fineweb")]
