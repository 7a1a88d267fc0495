"""Recall and precision on lines as they stand in mails, pages, logs and code, by kind."""

from collections import Counter

import pytest

from megatron_jobs.text.redact import Redactor, RedactRules
from tests.unit.text.personal_lines import INNOCENT_LINES, LINES, unmarked

FIGURES = {  # found, missed, taken though it is none
    "email": (16, 0, 0),
    "phone": (21, 0, 0),
    "ip": (11, 2, 1),  # 8.8.4.4 and 1.1.1.1 look like versions; 2.6.32.71 like an address
    "iban": (11, 0, 0),
    "card": (10, 0, 0),
    "national_id": (15, 0, 0),
}


def test_recall_and_precision_by_kind() -> None:
    redactor = Redactor(RedactRules())
    right, missed, wrong = Counter[str](), Counter[str](), Counter[str]()
    for line in [*LINES, *INNOCENT_LINES]:
        text, marked = unmarked(line)
        found = {(one.kind, one.begin, one.value.decode()) for one in redactor.find(text)}
        right.update(kind for kind, *_ in found.intersection(marked))
        missed.update(kind for kind, *_ in set(marked) - found)
        wrong.update(kind for kind, *_ in found.difference(marked))
    measured = {kind: (right[kind], missed[kind], wrong[kind]) for kind in right}
    assert measured == FIGURES
    found, lost, more = (sum(of_kind) for of_kind in zip(*FIGURES.values(), strict=True))
    assert found / (found + lost) > 0.97
    assert found / (found + more) > 0.98
    assert set(wrong) <= set(FIGURES)


@pytest.mark.parametrize("line", [line for line in INNOCENT_LINES if "2.6.32.71" not in line])
def test_innocent_lines_stay(line: str) -> None:
    assert Redactor(RedactRules()).redact(line) == (line, [])


def test_marks() -> None:
    assert unmarked("é {email:a@b.c} {ip:1}") == (
        "é a@b.c 1",
        [("email", 3, "a@b.c"), ("ip", 9, "1")],
    )
