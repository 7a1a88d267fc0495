"""Perplexities by our own models, by ARPA files and by KenLM's package."""

import gzip
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from megatron_jobs._ngrams import word_hashes
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.gram_training import Vocabulary, quantiles, save_grams, train
from megatron_jobs.text.perplexity import Perplexity, load_perplexity, perplexity

TEXTS = [
    "The cat sat on the mat.\nThe dog sat on the cat.",
    "A cat and a dog are on the mat; the mat is old.",
    "The old dog sat and sat, and the cat sat too.",
] * 3
ARPA = """
\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.3
-0.8\t</s>
-0.6\thi\t-0.2
-0.7\tyou\t-0.1

\\2-grams:
-0.2\t<s> hi
-0.3\thi you
-0.1\tyou </s>

\\end\\
"""


def trained(folder: Path, *, order: int = 3, min_count: int = 1) -> Perplexity:
    arrays = [word_hashes(text, lines=True) for text in TEXTS]
    vocabulary = Vocabulary.of(arrays, min_count=min_count)
    words = np.concatenate([vocabulary.number(array) for array in arrays])
    grams = train(words, vocabulary=vocabulary.size, order=order, threads=2)
    facts: dict[str, Any] = {"quantiles": quantiles({"en": [1.0, 2, 3], "": [10]}, least=3)}
    save_grams(grams, folder, words=vocabulary, facts=facts)
    return load_perplexity(folder)


def test_known_text_surprises_less(tmp_path: Path) -> None:
    model = trained(tmp_path)
    known = model.score("The cat sat on the mat.")
    assert 1 < known < model.score("mat the on sat cat The .") < model.score("Buy pills online!")
    assert model.score("THE CAT sat on the mat.") == known


def test_perplexity_is_of_words_and_ends_of_lines(tmp_path: Path) -> None:
    model = trained(tmp_path)
    one, two = "The cat sat.", "The old dog sat on a mat."
    lines = model.line_scores(f"{one}\n\n  \n{two}")
    assert lines[0] == model.score(one)
    assert math.isnan(lines[1])
    assert math.isnan(lines[2])
    assert lines[3] == model.score(two)
    bits = 5 * math.log(lines[0]) + 9 * math.log(lines[3])
    assert model.score(f"{one}\n\n{two}\n") == pytest.approx(math.exp(bits / 14))
    assert math.isnan(model.score(" \n"))


def test_rare_words_are_unknown(tmp_path: Path) -> None:
    """All unknown words together have one probability: of n equal ones each has an n-th."""
    model = trained(tmp_path, min_count=4)
    facts = model.facts
    every = {h for text in TEXTS for h in word_hashes(text).tolist()}
    assert facts["vocabulary"] + facts["unknown_words"] - 1 == len(every)
    assert facts["unknown_words"] > 1
    assert model.score("the zebra") > model.score("the cat")


def test_buckets_are_thirds_of_a_language(tmp_path: Path) -> None:
    model = trained(tmp_path)
    values = [1.5, 2, 2.5, 99]
    assert [model.bucket(v, "en") for v in values] == ["head", "middle", "tail", "tail"]
    assert [model.bucket(v, "xx") for v in values] == ["head", "head", "middle", "tail"]
    with pytest.raises(UserError, match="the model has no quantiles; train it by"):
        Perplexity(lambda text: (0.0, 0)).bucket(1)


def test_quantiles_leave_out_what_is_no_number() -> None:
    found = quantiles({"en": [1.0, math.nan, 3.0, math.inf], "de": [5.0]}, least=2)
    assert set(found) == {"*", "en"}
    assert found["en"]["quantiles"]["0.5"] == 2
    assert found["*"]["documents"] == 3
    assert quantiles({}, least=1) == {}


@pytest.mark.parametrize("packed", [False, True])
def test_arpa_files(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("m.arpa.gz" if packed else "m.arpa")
    path.write_bytes(gzip.compress(ARPA.encode()) if packed else ARPA.encode())
    model = load_perplexity(path)
    assert model.score("hi you") == pytest.approx(10 ** ((0.2 + 0.3 + 0.1) / 3))
    # hi after <s>; you backs off from hi never seen before x; </s> after an unknown word
    assert model.score("hi x") == pytest.approx(10 ** ((0.2 + (0.2 + 1.0) + 0.8) / 3))
    assert model.score("you you") == pytest.approx(10 ** ((0.3 + 0.7 + 0.1 + 0.7 + 0.1) / 3))


def test_an_arpa_file_without_unknown(tmp_path: Path) -> None:
    """log10 p is then -100, as KenLM has it."""
    path = tmp_path / "m.arpa"
    path.write_text(ARPA.replace("-1.0\t<unk>\n", "").replace("ngram 1=5", "ngram 1=4"))
    wanted = 10 ** ((0.2 + (0.2 + 100.0) + 0.8) / 3)
    assert load_perplexity(path).score("hi x") == pytest.approx(wanted, rel=1e-4)


def test_what_is_no_arpa_file(tmp_path: Path) -> None:
    path = tmp_path / "m.arpa"
    path.write_text("hello")
    with pytest.raises(DataError, match=r"found no \\1-grams: section"):
        load_perplexity(path)
    path.write_text(ARPA.replace("-0.3\thi you\n", ""))
    with pytest.raises(DataError, match="found a damaged ARPA file"):
        load_perplexity(path)
    path.write_text(ARPA.replace("ngram 2=3", "".join(f"ngram {n}=1\n" for n in range(2, 7))))
    with pytest.raises(UserError, match="found 6-grams, at most 5 can be read"):
        load_perplexity(path)


def test_kenlm_is_asked_for_its_own_files(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(UserError, match=r"needs the package kenlm; pip install kenlm, or give an"):
        load_perplexity(path)

    class Model:
        def __init__(self, name: str) -> None:
            if name != str(path):
                raise OSError("no model")

        def score(self, line: str, *, bos: bool, eos: bool) -> float:
            return -float(len(line.split()) + bos + eos)

    monkeypatch.setitem(sys.modules, "kenlm", SimpleNamespace(Model=Model))
    assert load_perplexity(path).score("a  b\n\nc") == pytest.approx(10 ** ((4 + 3) / (3 + 2)))
    other = tmp_path / "other.bin"
    other.write_bytes(b"")
    with pytest.raises(DataError, match="KenLM cannot read it: no model"):
        load_perplexity(other)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no facts.json in it; name a perplexity_model job's"):
        load_perplexity(tmp_path)
    trained(tmp_path)
    np.save(tmp_path / "grams_3.npy", np.zeros(3, np.uint64))
    with pytest.raises(DataError, match="found a damaged model: a table must have a power of two"):
        load_perplexity(tmp_path)
    facts = tmp_path / "facts.json"
    facts.write_text(facts.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(UserError, match="found a model of format 9, this version knows 1"):
        load_perplexity(tmp_path)


def test_perplexity_of_the_impossible() -> None:
    assert perplexity(-1e9, 1) == math.inf
    assert math.isnan(perplexity(0, 0))


def test_no_word_to_learn_from() -> None:
    vocabulary = Vocabulary.of([np.zeros(3, np.uint64)], min_count=1)
    with pytest.raises(UserError, match="found no word to learn from"):
        train(np.zeros(0, np.uint32), vocabulary=vocabulary.size, order=2, threads=1)
