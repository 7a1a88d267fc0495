#!/usr/bin/env python3
"""Verdicts and speed of the filters against datatrove's, on the same pages, in pairs.

    tools/bench/filter.py --pages pages.jsonl [--lid lid.176.ftz] [--lexicon en.txt]
        [--languages chunks.jsonl] [--only verdicts lists speed pipelines languages]

`pages.jsonl` holds objects with text, `chunks.jsonl` also with the language that each is in: as
tools/bench/filter_pages.py makes them. Needs datatrove 0.10 with spacy, nltk, pyahocorasick and
fasttext beside this package; `--lid` is a fastText model, `--lexicon` a list of bad words, one a
line. Addresses are those in the pages.

    verdicts   each rule that both have: how many agree (the reason too, C4's text too), with
               spaCy's words in both and with our own against spaCy's; why the others differ
    lists      the same for rules of lists and models
    speed      documents a second in memory on one core, each round of both one after the other
    pipelines  the same as whole stages with reading and writing; ours with one task and two
    languages  how many are right
"""

import argparse
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from filter_datatrove import PAIRS, ours, reason_of, theirs, url_rules, verdicts

from megatron_jobs.text.filters.characters import UNSPACED, expand
from megatron_jobs.text.filters.identify import Identify
from megatron_jobs.text.filters.lexicon import Lexicon
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Judge, Rule
from megatron_jobs.text.filters.spacy_words import spacy_splitter
from megatron_jobs.text.identify import detector
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

try:
    from datatrove.data import Document
    from datatrove.pipeline import filters as peers
    from datatrove.pipeline.filters import c4_filters
    from datatrove.utils.text import split_into_parts
except ImportError as error:
    sys.exit(f"bench: {error}; pip install 'datatrove[io]' spacy regex nltk")

PARTS = ("verdicts", "lists", "speed", "pipelines", "languages")
ALLOWED = [word for words in c4_filters._BADWORDS_ALLOWLIST.values() for word in words]
ADDRESS = re.compile(r"https?://[A-Za-z0-9./_?=&%-]+")
WITHOUT_SPACES = re.compile(f"[{''.join(expand(UNSPACED))}]")


def main() -> int:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--pages", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timed", type=int, default=60, help="pages of the timed rounds")
    parser.add_argument("--lid", type=Path, help="a fastText model")
    parser.add_argument("--lexicon", type=Path, help="bad words, one a line")
    parser.add_argument("--languages", type=Path, help="texts with their languages")
    asked = parser.parse_args()
    texts = [json.loads(line)["text"] for line in asked.pages.open(encoding="utf-8")]
    if "verdicts" in asked.only:
        compare_verdicts(texts)
    if "lists" in asked.only:
        compare_lists(texts, asked)
    if "speed" in asked.only:
        compare_speed(texts[: asked.timed], asked.rounds)
    if "pipelines" in asked.only:
        compare_pipelines(asked.pages, asked.timed, len(texts), asked.rounds)
    if "languages" in asked.only and asked.languages:
        chunks = [json.loads(line) for line in asked.languages.open(encoding="utf-8")]
        compare_languages(chunks, asked.lid)
    return 0


@dataclass
class Agreement:
    """What became of the pages by one rule."""

    rejected: int = 0
    """By datatrove."""
    same: int = 0
    """With spaCy's words in both."""
    own: int = 0
    """With our own words."""
    unspaced: int = 0
    """Differ, and a tenth of the page is in a script without spaces."""
    reason: int = 0
    """Differ in the reason only."""
    near: list[float] = field(default_factory=list)
    """Differ: how far what was found is from the limit, as a share of it."""
    pages: list[int] = field(default_factory=list)
    """Of `near`."""


def compare_verdicts(texts: Sequence[str]) -> None:
    """A line a rule."""
    cut, words = spacy_splitter(), dict[str, list[str]]()

    def splitter(text: str, language: str) -> list[str]:
        if text not in words:
            words[text] = cut(text, language)
        return words[text]

    judges = {
        name: (theirs(name), verdicts(name, splitter), verdicts(name, None)) for name in PAIRS
    }
    found = {name: Agreement() for name in PAIRS}
    for number, text in enumerate(texts):
        words.clear()
        for name, (their, same, own) in judges.items():
            wanted, given, (verdict, after) = their(text), same(text), own(text)
            agreement = found[name]
            agreement.rejected += bool(wanted[0])
            agreement.same += wanted == (reason_of(given[0]), given[1])
            if wanted == (reason_of(verdict), after):
                agreement.own += 1
            else:
                explain(agreement, number, text, given[0], verdict)
    for name, agreement in found.items():
        report_agreement(name, agreement, len(texts))


def explain(
    agreement: Agreement, number: int, text: str, spacy: Verdict | None, own: Verdict | None
) -> None:
    """Why a verdict with our words is another than that with spaCy's."""
    if len(WITHOUT_SPACES.findall(text)) > len(text) / 10:
        agreement.unspaced += 1
    elif spacy and own:
        agreement.reason += 1
    elif verdict := spacy or own:
        agreement.near.append(abs(verdict.found - verdict.limit) / verdict.limit)
        agreement.pages.append(number)


def report_agreement(name: str, agreement: Agreement, count: int) -> None:
    print(
        f"{name:18} {agreement.rejected} of {count} rejected by datatrove; agree with the same "
        f"words: {agreement.same} of {count}; with our own words: {agreement.own} of {count}"
    )
    differ = count - agreement.own
    if not differ:
        return
    parts = [
        f"{agreement.unspaced} in scripts without spaces",
        f"{agreement.reason} rejected by both for another reason",
    ]
    if agreement.near:
        far = max(agreement.near)
        parts.append(
            f"{len(agreement.near)} at a limit (found at most {far:.0%} off it, in the middle "
            f"{statistics.median(agreement.near):.1%}; the farthest is page "
            f"{agreement.pages[agreement.near.index(far)]})"
        )
    print(f"  {differ} differ: {', '.join(parts)}")


def compare_lists(texts: Sequence[str], asked: argparse.Namespace) -> None:
    """Rules by models and lists, with the same lists in both."""
    found = {url.lower() for text in texts for url in ADDRESS.findall(text)}
    addresses = sorted(found)[: len(texts)]
    with tempfile.TemporaryDirectory() as folder:
        rule, peer = url_rules(addresses, Path(folder))
        report_lists("urls", rule, peer, [Document("", "", metadata={"url": a}) for a in addresses])
    if asked.lid:
        model = peers.LanguageFilter(languages=["en"])
        model.model._model = importlib.import_module("fasttext").FastText._FastText(str(asked.lid))
        rule = Identify(languages=("en",), min_score=0.65, model=asked.lid)
        report_lists("identify, lid.176", rule, model, [Document(text, "") for text in texts])
    if asked.lexicon:
        c4_filters.cached_asset_path_or_download = lambda *_, **__: str(asked.lexicon)
        rule = Lexicon(files={"en": asked.lexicon}, allow=tuple(ALLOWED))
        report_lists("lexicon", rule, peers.C4BadWordsFilter(), [Document(t, "") for t in texts])


def report_lists(name: str, rule: Rule, peer: Any, documents: Sequence[Any]) -> None:
    """How many are kept alike, and what of the others."""
    judge, differ, rejected = rule.prepare(), Counter[str](), 0
    for document in documents:
        url = document.metadata.get("url", "")
        verdict = judge(Page(Record("", document.text, url=url)))
        found = peer.filter(document)
        kept = found is True or (isinstance(found, tuple) and found[0])
        rejected += not kept
        if kept != (verdict is None):
            differ["datatrove rejects" if not kept else f"ours {verdict and verdict.rule}"] += 1
    count = len(documents)
    alike = count - differ.total()
    print(f"{name:18} {rejected} of {count} rejected by datatrove; agree: {alike} of {count}")
    for what, times in differ.items():
        print(f"  {what}: {times}")


def compare_speed(texts: Sequence[str], rounds: int) -> None:
    """All rules in turn, a text's first verdict ending its trial, as pipelines do."""

    def chain(judges: list[Callable[[str], tuple[str, str]]]) -> Callable[[], None]:
        def run() -> None:
            for text in texts:
                left = text
                for judge in judges:
                    reason, left = judge(left)
                    if reason:
                        break

        return run

    all_theirs = chain([theirs(n) for n in PAIRS])
    timed = {"all rules": (all_theirs, shared_chain(texts, spacy=False))}
    for name in PAIRS:
        timed[name] = (chain([theirs(name)]), chain([ours(name, None)]))
    timed["all, spaCy's words"] = (all_theirs, shared_chain(texts, spacy=True))
    for what, (their, our) in timed.items():
        their(), our()
        seconds = []
        for _ in range(rounds):
            split_into_parts.cache_clear()
            start = time.perf_counter()
            their()
            middle = time.perf_counter()
            our()
            seconds.append((middle - start, time.perf_counter() - middle))
        rates = [(len(texts) / a, len(texts) / b) for a, b in seconds]
        report_speed(what, rates)


def shared_chain(texts: Sequence[str], *, spacy: bool) -> Callable[[], None]:
    """All our rules as the stage runs them, the words cut once."""
    judges: list[Judge] = [rule().prepare() for rule, _ in PAIRS.values()]
    splitter = spacy_splitter() if spacy else None

    def run() -> None:
        for text in texts:
            page = Page(Record("", text), splitter)
            any(judge(page) for judge in judges)

    return run


def report_speed(what: str, rates: Sequence[tuple[float, float]]) -> None:
    """Documents a second of both, medians; and the ratios."""
    ratios = sorted(our / their for their, our in rates)
    their, our = (statistics.median(column) for column in zip(*rates, strict=True))
    span = f"{statistics.median(ratios):.1f} [{ratios[0]:.1f}..{ratios[-1]:.1f}]"
    print(f"{what:18} datatrove {their:,.0f} pages/s   ours {our:,.0f}   ratio {span}", flush=True)


def compare_pipelines(pages: Path, timed: int, count: int, rounds: int) -> None:
    """datatrove sees the first pages only, ours all; one thread each."""
    one, two = [], []
    for _ in range(rounds):
        their = timed / slowest("datatrove", pages, timed, 1)
        one.append((their, count / slowest("ours", pages, count, 1)))
        two.append((their, count / slowest("ours", pages, count, 2)))
    report_speed("stage, one task", one)
    report_speed("stage, two tasks", two)
    gain = statistics.median(b / a for (_, a), (_, b) in zip(one, two, strict=True))
    print(f"  two tasks are {gain:.2f} times as fast as one")


def slowest(who: str, pages: Path, count: int, tasks: int) -> float:
    """Seconds of the slowest of the processes, which run at the same time."""
    script = str(Path(__file__).with_name("filter_datatrove.py"))
    words = [sys.executable, script, who, str(pages), str(count)]
    processes = [
        subprocess.Popen(
            [*words, f"{task}/{tasks}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for task in range(tasks)
    ]
    return max(map(read_seconds, processes))


def read_seconds(process: "subprocess.Popen[bytes]") -> float:
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"bench: a process ended with {process.returncode}: {' '.join(process.args)}")  # type: ignore[arg-type]
    return float(json.loads(out.splitlines()[-1])["seconds"])


def compare_languages(pages: list[dict[str, Any]], model: Path | None) -> None:
    """How many languages are right, by eldc and by a fastText model, and how fast."""
    detectors = {"eldc, samples": detector(None, samples=8)}
    if model is not None:
        detectors["fastText"] = detector(model, samples=8)
    for what, detect in detectors.items():
        start = time.perf_counter()
        found = [detect(page["text"])[0] for page in pages]
        seconds = time.perf_counter() - start
        right = Counter(p["language"] for p in right_ones(pages, found))
        share = right.total() / max(len(pages), 1)
        print(f"{what}: {share:.1%} of {len(pages)} right, {len(pages) / seconds:,.0f} texts/s")
        total = Counter(page["language"] for page in pages)
        print("  " + ", ".join(f"{name} {right[name]}/{total[name]}" for name in sorted(total)))


def right_ones(pages: list[dict[str, Any]], found: list[str]) -> Iterator[dict[str, Any]]:
    pairs = zip(pages, found, strict=True)
    return (page for page, language in pairs if page["language"] == language)


if __name__ == "__main__":
    sys.exit(main())
