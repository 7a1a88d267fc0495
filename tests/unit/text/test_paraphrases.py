"""Windows are runs of whole sentences, and what is like an item is found: by a slow search."""

import random
import re
import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from megatron_jobs._overlap import words
from megatron_jobs.text import paraphrases
from megatron_jobs.text.overlap import Decontamination, EvaluationPhrases, Owner
from megatron_jobs.text.paraphrases import (
    EmbeddingDecontamination,
    EvaluationTexts,
    cut_item,
    sentence_cuts,
)
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

PLACES = 64


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Hashed counts of words, of length 1: who shares words is near."""
    vectors = np.zeros((len(texts), PLACES), np.float32)
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.lower()):
            vectors[row, zlib.crc32(word.encode()) % PLACES] += 1
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def known(items: list[str], *, longest: int = 64, least_cosine: float = 0.6) -> EvaluationTexts:
    owned = [(Owner("quiz", f"q{i}"), text) for i, text in enumerate(items)]
    return EvaluationTexts(owned, embed, longest=longest, least_cosine=least_cosine)


def made_up(rng: random.Random, sentences: int) -> list[str]:
    """Sentences of three to nine words out of thirty."""
    return [
        " ".join(f"w{rng.randrange(30)}" for _ in range(rng.randint(3, 9))) + rng.choice(".?!")
        for _ in range(sentences)
    ]


def slow_cosines(document: list[str], items: list[str], longest: int) -> dict[str, float]:
    """Of each item the best run of sentences, every run by itself, sums in plain Python."""
    best: dict[str, float] = {}
    sizes = [len(item.split()) for item in items]
    for first in range(len(document)):
        for end in range(first + 1, len(document) + 1):
            run = " ".join(document[first:end])
            size = len(run.split())
            too_long = size > min(longest, 2 * max(sizes)) and end > first + 1
            if too_long or size < min(sizes) / 2:
                continue
            of_run = embed([run])[0].astype(float).tolist()
            for number, item in enumerate(items):
                of_item = embed([item])[0].astype(float).tolist()
                cosine = sum(a * b for a, b in zip(of_run, of_item, strict=True))
                best[f"q{number}"] = max(best.get(f"q{number}", -1.0), cosine)
    return best


@pytest.mark.parametrize("together", [1, 7, 512])
def test_finds_what_a_slow_search_finds(together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paraphrases, "TOGETHER", together)
    monkeypatch.setattr(paraphrases, "ITEMS_TOGETHER", together)
    rng = random.Random(together)
    items = [" ".join(made_up(rng, rng.randint(1, 3))) for _ in range(12)]
    documents = [made_up(rng, rng.randint(0, 9)) for _ in range(40)]
    documents[3] = [*documents[3], *re.findall(r"[^.?!]+[.?!]", items[5])]
    found = list(known(items, longest=30).find(" ".join(one) for one in documents))
    assert len(found) == len(documents)
    for document, likenesses in zip(documents, found, strict=True):
        slow = slow_cosines(document, items, 30)
        mine = {f"q{likeness.item}": likeness.cosine for likeness in likenesses}
        sure = {name for name, cosine in slow.items() if cosine > 0.6001}
        assert sure <= set(mine) <= {name for name, cosine in slow.items() if cosine > 0.5999}
        for name, cosine in mine.items():
            assert cosine == pytest.approx(slow[name], abs=1e-4)
        assert [one.cosine for one in likenesses] == sorted(mine.values(), reverse=True)
    assert max(found[3], key=lambda one: one.cosine).item == 5
    assert sum(map(len, found)) > 20


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One two. Three?  Four five!", ["One two.", "Three?", "Four five!"]),
        ('He said "No." Then he left', ['He said "No."', "Then he left"]),
        ("a line\nanother, of 3.14 and e.g this", ["a line", "another, of 3.14 and e.g this"]),
        ("Él dijo «sí». Y se fue… Fin.", ["Él dijo «sí».", "Y se fue…", "Fin."]),
        ("一二。三四？五", ["一二。", "三四？", "五"]),
        ("one two three four five six seven", ["one two three four five", "six seven"]),
        ("", []),
        ("?! --", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    raw, spans = text.encode(), words(text)
    cuts = sentence_cuts(raw, spans, 8 if "\n" in text else 5)
    found = [raw[spans[a][0] : spans[b - 1][1]].decode() for a, b in pairwise(cuts)]
    assert found == [one.rstrip('.?!…。？"»').lstrip("«") for one in sentences]


def test_long_items_are_cut_at_sentences() -> None:
    parts = ["a b c d.", "e f g.", "h i j k l?", "m n."]
    assert cut_item(" ".join(parts), 64) == [" ".join(parts)]
    assert cut_item(" ".join(parts), 8) == ["a b c d. e f g.", "h i j k l? m n."]
    assert cut_item("a b c d e f g h i j. k l.", 8) == ["a b c d e f g h", "i j. k l."]
    assert cut_item("a b c d e f g h. i j k.", 8) == ["a b c d e f g h."]  # the rest is too short
    assert cut_item(" . ", 8) == []


def test_windows_are_about_as_long_as_items() -> None:
    of_eight = known(["one two three four five six seven eight"])
    text = "a b c. d e f g h. i. " + " ".join("word" for _ in range(20)) + "."
    assert [(one.word, one.text) for one in of_eight.windows(4, text)][:3] == [
        (0, "a b c. d e f g h."),
        (0, "a b c. d e f g h. i."),
        (3, "d e f g h."),
    ]
    sizes = [len(one.text.split()) for one in of_eight.windows(4, text)]
    assert max(size for size in sizes if size != 20) <= 16
    assert sizes[-1] == 20  # a sentence is looked at whole, up to the longest window
    assert {one.document for one in of_eight.windows(4, text)} == {4}
    assert list(known([]).windows(0, text)) == []
    assert list(known([]).find([text, text])) == [[], []]


def test_what_becomes_of_records() -> None:
    asked = "which river flows through the largest city of the old kingdom in the south today"
    other = "how many apples remain when seven hungry children have taken two apples each"
    phrases = EvaluationPhrases(13, 8)
    phrases.add(Owner("quiz", "q0"), [asked])
    treatment = EmbeddingDecontamination(Decontamination(phrases), known([asked, other]))
    shuffled = " ".join(reversed(other.split()))
    texts = ["nothing of all that was in it.", f"Note. {asked}!", f"Begin. {shuffled}. End."]
    records = [Record(id=f"d{i}", text=text) for i, text in enumerate(texts)]
    treatment.prepare(iter(records))
    results, notes = [], []
    for record in records:
        results.append(treatment.treat(record))
        notes.append(treatment.notes())
    assert results[0] is records[0]
    assert isinstance(results[1], Verdict)
    assert results[1].rule == "decontaminate.overlap"
    told = {"set": "quiz", "item": "q1", "cosine": 1.0}
    assert results[2] == Verdict("decontaminate.embedding", told, 0.6)
    assert notes[0] == []
    assert [note["item"] for note in notes[1]] == ["q0", "q0", "q0", "q0"]  # three phrases
    assert notes[2] == [
        {
            "set": "quiz",
            "item": "q1",
            "document": "d2",
            "word": 1,
            "phrase": f"{shuffled}.",
            "asked": other,
            "cosine": 1.0,
        }
    ]
    assert treatment.numbers() == {"contaminated.quiz": 1, "similar.quiz": 2}
    assert treatment.numbers() == {}
