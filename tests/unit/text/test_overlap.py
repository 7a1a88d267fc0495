"""Every planted phrase is found, and nothing else: against a slow search in plain Python."""

import json
import random
import re
import unicodedata
from pathlib import Path

import pytest

from megatron_jobs._overlap import Phrases, words
from megatron_jobs.text.overlap import (
    Decontamination,
    EvaluationPhrases,
    Owner,
    cut_out,
)
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"


def plain_words(text: str) -> list[str]:
    """Letters and digits in runs: what `words` says of text without marks and CJK."""
    return re.findall(r"[^\W_]+", text.lower())


def books() -> list[str]:
    texts = [json.loads(line)["text"] for line in BOOKS.open()]
    return [text.replace("’", "'") for text in texts[:60]]


def test_words_of_real_text() -> None:
    for text in [*books()[:5], "Straße—naïve «œuvre», 3½ ¿qué? Ελλάδα, Привет!", "", " ", "x"]:
        lower = text.lower()
        raw = lower.encode()
        found = [raw[a:b].decode() for a, b in words(lower)]
        assert found == [w for w in re.findall(r"[^\W_½]+", lower) if w]


def test_letters_of_scripts_without_spaces() -> None:
    raw = "今日は 晴れ。abc你好x ไทย".encode()
    found = [raw[a:b].decode() for a, b in words(raw.decode())]
    assert found == [*"今日は晴れ", "abc", "你", "好", "x", *"ไทย"]


def test_bytes_cut_short() -> None:
    assert words("é" + "\U0001f600" + "a\0b") == [(0, 2), (6, 7), (8, 9)]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_equals_a_slow_search(size: int) -> None:
    """Few words, so that phrases repeat, overlap, and nearly match."""
    draw = random.Random(size)
    phrases = Phrases(size=size, least=max(1, size - 2))
    known: dict[tuple[str, ...], int] = {}
    for _ in range(20):
        text = [draw.choice("abcde") for _ in range(draw.randint(0, 8))]
        length = min(size, len(text))
        grams = [tuple(text[i : i + length]) for i in range(len(text) - length + 1)]
        wanted = grams if length >= max(1, size - 2) else []
        numbers = [known.setdefault(gram, len(known)) for gram in wanted]
        assert phrases.add(" ".join(text)) == numbers
    assert len(phrases) == len(known)
    for _ in range(50):
        text = [draw.choice("abcdef") for _ in range(draw.randint(0, 40))]
        found = phrases.find(", ".join(text))
        slow = [
            (at, n, known[tuple(text[at : at + n])])
            for at in range(len(text))
            for n in range(size, 0, -1)
            if at + n <= len(text) and tuple(text[at : at + n]) in known
        ]
        assert found == slow


def test_planted_phrases_and_nothing_else() -> None:
    """Runs of 13 words planted in real text are found; 12 words, or one changed, are not."""
    draw = random.Random(1)
    texts = books()
    questions = [" ".join(draw.sample(plain_words(texts[0]), 40)) for _ in range(30)]
    known = EvaluationPhrases(13, 13)
    for number, question in enumerate(questions):
        known.add(Owner("set", str(number)), [question])
    planted = {}
    for number, text in enumerate(texts[1:]):
        asked = draw.randrange(30)
        at = draw.randrange(27)
        run = questions[asked].split()[at : at + 13]
        kind = number % 4
        if kind == 1:
            run = run[:12]
        elif kind == 2:
            run[6] += "x"
        elif kind == 3:
            run = []
        place = text.find(" ", len(text) // 2)
        changed = text[:place] + " qqq " + ", ".join(run).upper() + " qqq " + text[place:]
        hits = known.find(changed)
        if kind == 0:
            assert [(n, known.phrases.words_of(p)) for _, n, p in hits] == [(13, " ".join(run))]
            assert Owner("set", str(asked)) in known.owners[hits[0][2]]
            planted[number] = hits
        else:
            assert hits == [], kind
    assert len(planted) == 15


def test_a_short_item_is_one_phrase() -> None:
    known = EvaluationPhrases(13, 8)
    known.add(Owner("set", "short"), ["What is the capital city of the Republic of Fiji?", "Suva"])
    assert (len(known.phrases), known.too_short) == (1, 1)
    assert known.find("they ask: what is the capital-city of the republic of fiji today") != []
    assert known.find("what is the capital city of the republic") == []


def test_rejected_with_its_hits() -> None:
    known = EvaluationPhrases(3, 3)
    known.add(Owner("quiz", "7"), ["red green blue yellow"])
    known.add(Owner("exam", "1"), ["Red, green, blue!"])
    treatment = Decontamination(known)
    clean = Record("a", "red green yellow")
    assert treatment.treat(clean) is clean
    assert treatment.notes() == []
    verdict = treatment.treat(Record("b", "a red (green) blue"))
    first = {"set": "quiz", "item": "7", "phrase": "red green blue"}
    assert verdict == Verdict("decontaminate.overlap", first, None)
    common = {"document": "b", "word": 1, "phrase": "red green blue"}
    assert treatment.notes() == [
        {"set": "quiz", "item": "7", **common},
        {"set": "exam", "item": "1", **common},
    ]
    assert treatment.numbers() == {"contaminated.exam": 1, "contaminated.quiz": 1}
    assert treatment.numbers() == {}


def test_cut_out() -> None:
    known = EvaluationPhrases(3, 3)
    known.add(Owner("quiz", "7"), ["zwei drei vier fünf"])
    treatment = Decontamination(known, cut=True)
    record = treatment.treat(Record("a", "Eins, ZWEI drei vier FÜNF (sechs)."))
    assert isinstance(record, Record)
    assert record.text == "Eins,  (sechs)."
    assert isinstance(treatment.treat(Record("b", "zwei drei vier")), Verdict)
    assert cut_out("a b c d e f", [(2, 1), (3, 1)], 1) == "a  f"
    assert cut_out("a b", [(0, 1)], 5) == ""


@pytest.mark.parametrize("cut", [False, True])
def test_forms_of_letters_do_not_hide_a_phrase(cut: bool) -> None:
    asked = "qual é a função do coração na circulação"
    known = EvaluationPhrases(4, 4)
    known.add(Owner("quiz", "1"), [unicodedata.normalize("NFD", asked)])
    treatment = Decontamination(known, cut=cut)
    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, f"Pois: {asked}?").replace("fun", "fun\u00ad")
        result = treatment.treat(Record("a", text))
        if cut:
            assert isinstance(result, Record)
            assert result.text == "Pois: ?"
        else:
            assert isinstance(result, Verdict)


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="least: found 4, must be from 1 to size = 3"):
        Phrases(size=3, least=4)
    with pytest.raises(ValueError, match="phrase: found 0, there are 0"):
        Phrases(size=3, least=3).words_of(0)
