"""Sentences by Punkt, against nltk itself and by hand."""

import json
from pathlib import Path

import pytest
from nltk.tokenize.punkt import PunktSentenceTokenizer

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.sentences import SentenceSplitter, load_punkt, save_punkt, train_punkt

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [json.loads(line)["text"] for line in BOOKS.read_text().splitlines()[:4]]


@pytest.mark.parametrize("keep_space", [False, True])
def test_saved_and_loaded_it_cuts_as_nltk_does(
    tmp_path: Path, texts: list[str], keep_space: bool
) -> None:
    parameters = train_punkt(texts)
    save_punkt(parameters, tmp_path / "punkt.json")
    first = (tmp_path / "punkt.json").read_bytes()
    splitter = SentenceSplitter(load_punkt(tmp_path / "punkt.json"), keep_space=keep_space)
    nltks = PunktSentenceTokenizer(parameters)
    for text in texts:
        sentences = splitter.split(text)
        assert len(sentences) > 20
        assert [s.strip() for s in sentences] == [s.strip() for s in nltks.tokenize(text)]
        assert ("".join(sentences) == text) == keep_space
    save_punkt(load_punkt(tmp_path / "punkt.json"), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == first


def make_tabs(folder: Path) -> Path:
    """A model in the form of nltk's punkt_tab that knows one abbreviation."""
    for name in ("collocations.tab", "sent_starters.txt"):
        (folder / name).write_text("")
    (folder / "abbrev_types.txt").write_text("dr\n")
    (folder / "ortho_context.tab").write_text("word\t46\n")
    return folder


def test_a_folder_of_nltks_data(tmp_path: Path) -> None:
    splitter = SentenceSplitter(load_punkt(make_tabs(tmp_path)), keep_space=True)
    assert splitter.split("Dr. Who came.  He left.\n") == ["Dr. Who came.  ", "He left.\n"]
    assert splitter.split("") == [""]
    assert splitter.split("  \n") == ["  \n"]
    assert SentenceSplitter(load_punkt(tmp_path), keep_space=False).split("It is. He was. ") == [
        "It is.",
        "He was.",
    ]
    (tmp_path / "sent_starters.txt").unlink()
    with pytest.raises(UserError, match=r"has no sent_starters\.txt; nltk's punkt_tab/LANGUAGE ha"):
        load_punkt(tmp_path)


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"abbreviations": []}')
    with pytest.raises(DataError, match=r"x\.json: not a saved Punkt model: KeyError\('colloca"):
        load_punkt(tmp_path / "x.json")
