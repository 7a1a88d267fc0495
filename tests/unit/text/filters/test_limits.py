"""Rules of limits: length, kinds of characters, scores, OSCAR's annotations."""

import pytest

from megatron_jobs.text.filters.length import Length
from megatron_jobs.text.filters.oscar import Oscar
from megatron_jobs.text.filters.score import Score
from megatron_jobs.text.filters.symbols import Symbols
from megatron_jobs.text.record import Record
from tests.unit.text.filters.judged import judged, problems_of, verdict_of

LONG = "so that nobody calls it short, " * 4


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"min_characters": 14, "max_characters": 14}, ""),
        ({"min_characters": 15}, "too_low_characters"),
        ({"max_characters": 13}, "too_high_characters"),
        ({"min_words": 4, "max_words": 4, "min_lines": 2, "max_lines": 2}, ""),
        ({"min_words": 5}, "too_low_words"),
        ({"max_words": 3}, "too_high_words"),
        ({"min_lines": 3}, "too_low_lines"),
        ({"max_lines": 1}, "too_high_lines"),
    ],
)
def test_length(limits: dict[str, int], wanted: str) -> None:
    assert judged(Length(**limits), "one\n \n\ntwo it.") == wanted


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"min_letters": 0.4}, ""),
        ({"min_letters": 0.5}, "too_low_letters"),
        ({"max_capitals": 0.2}, ""),
        ({"max_capitals": 0.1}, "too_high_capitals"),
        ({"max_digits": 0.2}, "too_high_digits"),
        ({"max_punctuation": 0.1}, "too_high_punctuation"),
        ({"max_others": 0.05}, "too_high_others"),
        ({"max_digits": 0.3, "max_punctuation": 0.2, "max_others": 0.1001}, ""),
    ],
)
def test_kinds_of_characters(limits: dict[str, float], wanted: str) -> None:
    """Ten characters: four letters, two of them capitals, three digits, two points, a plus."""
    assert judged(Symbols(**limits), "aB cD\n12 3.!+") == wanted


def test_scores() -> None:
    rule = Score(metadata="quality", min=0.5, max=2)
    for value, wanted in ((0.4, "too_low_quality"), (1, ""), (2.5, "too_high_quality")):
        assert judged(rule, metadata={"quality": value}) == wanted
    for missing in ({}, {"quality": "good"}, {"quality": True}, {"quality": None}):
        assert judged(rule, metadata=missing) == "quality.missing"
        assert judged(rule.model_copy(update={"missing": "pass"}), metadata=missing) == ""


def test_buckets_by_language() -> None:
    cuts = {"de": (10, 20), "": (100, 200)}
    rule = Score(metadata="perplexity", cuts=cuts, keep=("head", "middle"))
    for language, value, bucket in (
        ("de", 10, "head"), ("de", 10.5, "middle"), ("de", 21, "tail"), ("en", 21, "head")
    ):  # fmt: skip
        record = Record("", "", language=language, metadata={"perplexity": value})
        found = verdict_of(rule, record)
        assert record.metadata["perplexity_bucket"] == bucket
        assert found == (("score.perplexity.tail", 21, [10, 20]) if bucket == "tail" else None)


def test_oscars_annotations() -> None:
    page = [LONG] * 10
    cases = {
        "": page,
        "tiny": [LONG] * 4,
        "short_sentences": [LONG, "short"] * 3 + ["short"] * 3 + [LONG] * 2,
        "header": ["short", "brief", *page],
        "footer": [*page, "short", "brief"],
        "noisy": ["abc 12 de + " * 10] * 10,
    }
    for name, lines in cases.items():
        record = Record("", "\n".join(lines))
        found = verdict_of(Oscar(), record)
        assert (found[0] if found else "") == (name and f"oscar.{name}"), name
        assert (name in record.metadata.get("annotations", [])) == bool(name)
    hindi = "यह एक लंबी पंक्ति है जिसमें हिन्दी के शब्द और मात्राएँ हैं, " * 3
    assert judged(Oscar(), "\n".join([hindi] * 10)) == ""
    record = Record("", "\n".join(cases["header"]))
    assert verdict_of(Oscar(reject=("noisy",)), record) is None
    assert record.metadata["annotations"] == ["header"]


def test_empty_texts_pass_or_fail_without_an_error() -> None:
    assert judged(Oscar()) == "tiny"
    assert judged(Symbols(max_digits=0)) == ""
    assert judged(Length(min_words=1, min_lines=1)) == "too_low_lines"


def test_what_cannot_work() -> None:
    assert problems_of(Length, rule="length", min_words=5, max_words=4) == [
        ("min_words", "5 is over max_words, 4: nothing would go on")
    ]
    assert problems_of(Symbols, rule="symbols") == [
        (
            "rule",
            "symbols needs at least one of min_letters, max_capitals, max_digits, "
            "max_punctuation, max_others",
        )
    ]
    assert problems_of(Score, rule="score", metadata="a", cuts={"de": [2, 1]}) == [
        ("cuts.de", "2.0, 1.0 must be in order")
    ]
    assert problems_of(Score, rule="score", metadata="a") == [
        ("rule", "score needs at least one of min, max, cuts")
    ]
