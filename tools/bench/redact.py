#!/usr/bin/env python3
"""Redaction against datatrove's PIIFormatter and Presidio's recognizers: recall and speed.

    tools/bench/redact.py mails.jsonl docs.jsonl --rounds 5

Recall and precision are of values planted in the texts of the files, of published examples and
drawn ones, with as much that only looks like it (tests/unit/text/planted.py); then of lines as
they stand in mails, logs and code (tests/unit/text/personal_lines.py). datatrove finds
e-mail and public IPv4 addresses: beside all our kinds, these two alone are timed. Peers that are
not installed (datatrove, presidio-analyzer) are left out. Printed are medians and, of the ratios
of each round, the median and the range; Presidio sees the first `--presidio-kb` only.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from megatron_jobs.text.redact import Redactor, RedactRules
from tests.unit.text.personal_lines import INNOCENT_LINES, LINES, unmarked
from tests.unit.text.planted import plant

Spans = list[tuple[str, int, int]]
"""(kind, begin, end), in characters."""
PRESIDIO = {
    "EMAIL_ADDRESS": "email",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "PHONE_NUMBER": "phone",
    "US_SSN": "national_id",
}


def main() -> int:
    """Print recall and precision by kind, then speeds."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mb", type=float, default=20)
    parser.add_argument("--presidio-kb", type=float, default=200)
    asked = parser.parse_args()
    texts = read(asked.files, int(asked.mb * 1e6))
    presidio = load_presidio()
    for name, find in (("ours", ours), ("presidio", presidio)):
        if find:
            judge(name, find, texts)
            judge_lines(name, find)
    whole, two = Redactor(RedactRules()), Redactor(RedactRules(kinds=("email", "ip")))
    time_against("all kinds", lambda text: whole.redact(text)[0], "nothing", None, texts, asked)
    formatter = load_datatrove()
    time_against(
        "e-mail, IP", lambda text: two.redact(text)[0], "datatrove", formatter, texts, asked
    )
    few = first(texts, int(asked.presidio_kb * 1000))
    time_against("all kinds", whole.find, "presidio", presidio, few, asked)
    return 0


def read(files: list[Path], size: int) -> list[str]:
    """Texts of JSONL, of each file as many bytes."""
    found: list[str] = []
    for path in files:
        lines = path.open(encoding="utf-8")
        found += first([json.loads(line)["text"] for line in lines], size // len(files))
    return found


def first(texts: list[str], size: int) -> list[str]:
    """The first texts, some `size` letters in all."""
    found = []
    for text in texts:
        if size <= 0:
            break
        found.append(text)
        size -= len(text)
    return found


def ours(text: str) -> Spans:
    """What the stage finds, in characters."""
    data = text.encode()
    return [
        (one.kind, len(data[: one.begin].decode()), len(data[: one.end].decode()))
        for one in Redactor(RedactRules()).find(text)
    ]


def load_presidio() -> Callable[[str], Spans] | None:
    """Its recognizers by pattern, without a language model."""
    try:
        from presidio_analyzer import predefined_recognizers as known
    except ImportError as error:
        print(f"presidio: left out, {error}")
        return None
    names = ("Email", "CreditCard", "Iban", "Ip", "Phone", "UsSsn")
    recognizers: list[Any] = [getattr(known, f"{name}Recognizer")() for name in names]

    def find(text: str) -> Spans:
        return [
            (PRESIDIO[result.entity_type], result.start, result.end)
            for recognizer in recognizers
            for result in recognizer.analyze(text, recognizer.supported_entities, None) or []
        ]

    return find


def load_datatrove() -> Callable[[str], Any] | None:
    """Its formatter with its defaults."""
    try:
        from datatrove.pipeline.formatters import PIIFormatter
    except ImportError as error:
        print(f"datatrove: left out, {error}")
        return None
    return PIIFormatter().format


def judge(name: str, find: Callable[[str], Spans], texts: list[str]) -> None:
    """Planted values that are found, and what is found where nothing was planted."""
    sentences = [line.strip() for text in texts[:400] for line in text.split("\n")]
    clean = [line for line in sentences if 20 < len(line) < 200 and not find(line)][:400]
    planted, hits, wrong = Counter[str](), Counter[str](), Counter[str]()
    for seed in range(5):
        text, values = plant(clean, seed=seed)
        wanted = {(p.kind, p.begin, p.begin + len(p.value)) for p in values}
        found = set(find(text))
        planted.update(kind for kind, _, _ in wanted)
        hits.update(kind for kind, _, _ in wanted & found)
        wrong.update(kind for kind, _, _ in found - wanted)
    print(f"{name}: found of those planted, and how many of those found were planted")
    for kind, count in sorted(planted.items()):
        sure = hits[kind] / (hits[kind] + wrong[kind]) if hits[kind] else 0
        print(f"  {kind:16} {count:5}   recall {hits[kind] / count:.3f}   precision {sure:.3f}")


def judge_lines(name: str, find: Callable[[str], Spans]) -> None:
    """Marked values of lines that are found, and what is found that is not marked."""
    marked, hits, wrong = Counter[str](), Counter[str](), Counter[str]()
    for line in [*LINES, *INNOCENT_LINES]:
        text, values = unmarked(line)
        data = text.encode()
        begins = {(kind, len(data[:at].decode()), len(value)) for kind, at, value in values}
        wanted = {(kind, begin, begin + size) for kind, begin, size in begins}
        found = set(find(text))
        marked.update(kind for kind, _, _ in wanted)
        hits.update(kind for kind, _, _ in wanted & found)
        wrong.update(kind for kind, _, _ in found - wanted)
    print(f"{name}: of lines, {len(INNOCENT_LINES)} of which hold nothing")
    for kind, count in sorted(marked.items()):
        print(f"  {kind:16} {count:5}   found {hits[kind]:3}   wrong {wrong[kind]:3}")


def time_against(
    what: str,
    mine: Callable[[str], Any],
    name: str,
    theirs: Callable[[str], Any] | None,
    texts: list[str],
    asked: argparse.Namespace,
) -> None:
    """Both in turn, each round."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    seconds: list[tuple[float, float]] = []
    for _ in range(asked.rounds):
        start = time.perf_counter()
        for text in texts:
            mine(text)
        middle = time.perf_counter()
        for text in texts if theirs else []:
            theirs(text)  # type: ignore[misc]
        seconds.append((middle - start, time.perf_counter() - middle))
    own, other = (statistics.median(column) for column in zip(*seconds, strict=True))
    line = f"{what:12} {size:5.1f} MB   ours {size / own:6.1f} MB/s"
    if theirs:
        ratios = [their / our for our, their in seconds]
        span = f"{statistics.median(ratios):.1f} [{min(ratios):.1f}..{max(ratios):.1f}]"
        line += f"   {name} {size / other:6.2f} MB/s   ratio {span}"
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
