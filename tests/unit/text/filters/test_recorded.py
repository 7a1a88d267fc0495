"""Verdicts equal datatrove's, given its words: tools/record_verdicts.py wrote them down.

The texts are of Jane Austen's novels (public domain) and of our own files, some of them spoilt, and
such as stand at a limit. Real pages are compared by tools/bench/filter.py.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.text.filters.c4 import C4
from megatron_jobs.text.filters.fineweb import FineWeb
from megatron_jobs.text.filters.gopher_quality import GopherQuality
from megatron_jobs.text.filters.gopher_repetition import GopherRepetition
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.record import Record

RULES = {
    "gopher_quality": GopherQuality(),
    "gopher_repetition": GopherRepetition(),
    "fineweb": FineWeb(),
    "c4": C4(),
}
REASONS = {
    "gopher_quality": "too_few_words short_words long_words hashes ellipses bullet_lines "
    "ellipsis_lines alphabetic stop_words",
    "gopher_repetition": "empty repeated_paragraphs repeated_paragraph_characters repeated_lines "
    "repeated_line_characters top_2_words top_3_words top_4_words repeated_5_words "
    "repeated_6_words repeated_7_words repeated_8_words repeated_9_words repeated_10_words",
    "fineweb": "empty punctuated_lines short_lines repeated_characters new_lines",
    "c4": "too_few_sentences lorem_ipsum curly_bracket",
}
"""All that a rule can say, too_many_words aside."""
LINES = (Path(__file__).parent / "recorded.jsonl").read_text(encoding="utf-8").split("\n")
RECORDED: list[dict[str, Any]] = [json.loads(line) for line in LINES if line]


@pytest.mark.parametrize("rule", RULES)
def test_verdicts_and_texts_are_datatroves(rule: str) -> None:
    judge = RULES[rule].prepare()
    reasons: Counter[str] = Counter()
    for number, recorded in enumerate(RECORDED):
        words = {text: cut.split("\n") for text, cut in recorded["words"].items()}

        def splitter(text: str, language: str, words: dict[str, list[str]] = words) -> list[str]:
            return [word for word in words[text] if word]

        page = Page(Record("", recorded["text"]), splitter)
        verdict = judge(page)
        reason = verdict.rule.removeprefix(f"{rule}.") if verdict else ""
        wanted, after = recorded["verdicts"][rule]
        assert reason == wanted, f"text {number}"
        assert page.text == (recorded["text"] if after is None else after), f"text {number}"
        reasons[reason] += 1
    assert set(reasons) == {"", *REASONS[rule].split()}, "something of the rule is not tried"


def test_a_text_of_too_many_words() -> None:
    """It would be too long to be recorded."""
    judge = GopherQuality(min_words=2, max_words=3).prepare()
    found = [judge(Page(Record("", text))) for text in ("but three words", "these are four words")]
    reasons = [verdict and verdict.rule for verdict in found]
    assert reasons == ["gopher_quality.stop_words", "gopher_quality.too_many_words"]


@pytest.mark.parametrize("rule", RULES)
def test_own_words_seldom_change_a_verdict(rule: str) -> None:
    judge = RULES[rule].prepare()
    found = [judge(Page(Record("", recorded["text"]))) is None for recorded in RECORDED]
    wanted = [not recorded["verdicts"][rule][0] for recorded in RECORDED]
    assert sum(a == b for a, b in zip(found, wanted, strict=True)) >= len(wanted) - 2
