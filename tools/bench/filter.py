#!/usr/bin/env python3
"""Verdicts and speed of the filters against datatrove's, on the same pages, in pairs.

    tools/bench/filter.py --pages pages.jsonl [--lid lid.176.ftz] [--lexicon en.txt]
        [--languages chunks.jsonl]

`pages.jsonl` holds objects with text, `chunks.jsonl` also with the language that each is in. Needs
datatrove 0.10 with spacy, nltk, pyahocorasick and fasttext beside this package; `--lid` is a
fastText model, `--lexicon` a list of bad words, one a line. Addresses are those in the pages.

Printed are, for each rule that both have, how many verdicts are equal (the reason too) with spaCy's
words in both and with our own words against spaCy's; then documents a second, each round of both
one after the other, the median of the ratios and their range; then how many languages are right.
"""

import argparse
import importlib
import json
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from megatron_jobs.text.filters.c4 import C4
from megatron_jobs.text.filters.fineweb import FineWeb
from megatron_jobs.text.filters.gopher_quality import GopherQuality
from megatron_jobs.text.filters.gopher_repetition import GopherRepetition
from megatron_jobs.text.filters.identify import Identify
from megatron_jobs.text.filters.lexicon import Lexicon
from megatron_jobs.text.filters.page import Page, Splitter
from megatron_jobs.text.filters.rule import Judge, Rule
from megatron_jobs.text.filters.spacy_words import spacy_splitter
from megatron_jobs.text.filters.urls import Urls
from megatron_jobs.text.identify import detector
from megatron_jobs.text.record import Record

try:
    from datatrove.data import Document
    from datatrove.pipeline import filters as peers
    from datatrove.pipeline.filters import c4_filters
    from datatrove.utils.text import split_into_parts
except ImportError as error:
    sys.exit(f"bench: {error}; pip install 'datatrove[io]' spacy regex nltk")

PAIRS = {
    "gopher_quality": (GopherQuality, "GopherQualityFilter"),
    "gopher_repetition": (GopherRepetition, "GopherRepetitionFilter"),
    "fineweb": (FineWeb, "FineWebQualityFilter"),
    "c4": (C4, "C4QualityFilter"),
}
REASONS = {
    "gopher_short_doc": "too_few_words",
    "gopher_long_doc": "too_many_words",
    "gopher_below_avg_threshold": "short_words",
    "gopher_above_avg_threshold": "long_words",
    "gopher_too_many_hashes": "hashes",
    "gopher_too_many_ellipsis": "ellipses",
    "gopher_too_many_bullets": "bullet_lines",
    "gopher_too_many_end_ellipsis": "ellipsis_lines",
    "gopher_below_alpha_threshold": "alphabetic",
    "gopher_enough_stop_words": "stop_words",
    "dup_para_frac": "repeated_paragraphs",
    "dup_para_char_frac": "repeated_paragraph_characters",
    "dup_line_frac": "repeated_lines",
    "dup_line_char_frac": "repeated_line_characters",
    **{f"top_{n}_gram": f"top_{n}_words" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"repeated_{n}_words" for n in range(5, 11)},
    "line_punct_ratio": "punctuated_lines",
    "short_line_ratio": "short_lines",
    "char_dup_ratio": "repeated_characters",
    "list_ratio": "new_lines",
}
"""What datatrove calls our tests; those left out are called the same."""
ALLOWED = [word for words in c4_filters._BADWORDS_ALLOWLIST.values() for word in words]
ADDRESS = re.compile(r"https?://[A-Za-z0-9./_?=&%-]+")
Outcome = tuple[str, str]
"""Why a text is rejected, or nothing; the text after."""


def main() -> int:
    """Print a line a rule, then speeds, then languages."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--pages", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timed", type=int, default=300, help="pages of the timed rounds")
    parser.add_argument("--differences", type=int, default=3, help="examples to print")
    parser.add_argument("--lid", type=Path, help="a fastText model")
    parser.add_argument("--lexicon", type=Path, help="bad words, one a line")
    parser.add_argument("--languages", type=Path, help="texts with their languages")
    asked = parser.parse_args()
    pages = [json.loads(line) for line in asked.pages.open(encoding="utf-8")]
    texts = [page["text"] for page in pages]
    for name in PAIRS:
        compare_verdicts(name, texts, asked.differences)
    compare_lists(texts, asked)
    compare_speed(texts[: asked.timed], asked.rounds)
    if asked.languages:
        chunks = [json.loads(line) for line in asked.languages.open(encoding="utf-8")]
        compare_languages(chunks, asked.lid)
    return 0


def theirs(name: str) -> Callable[[str], Outcome]:
    """datatrove's verdict of a text, in our names."""
    judge = getattr(peers, PAIRS[name][1])()

    def outcome(text: str) -> Outcome:
        document = Document(text=text, id="")
        found = judge.filter(document)
        if found is True:
            return "", document.text
        reason = found[1] if isinstance(found, tuple) else "rejected"
        return REASONS.get(reason, reason), document.text

    return outcome


def ours(name: str, splitter: Splitter | None) -> Callable[[str], Outcome]:
    """Our verdict of a text."""
    judge: Judge = PAIRS[name][0]().prepare()

    def outcome(text: str) -> Outcome:
        page = Page(Record("", text), splitter)
        verdict = judge(page)
        return (verdict.rule.partition(".")[2] if verdict else ""), page.text

    return outcome


def compare_verdicts(name: str, texts: Sequence[str], examples: int) -> None:
    """Equal with the same words, and equal with words of our own."""
    judge = theirs(name)
    wanted = [judge(text) for text in texts]
    rejected = sum(bool(reason) for reason, _ in wanted)
    line = f"{name:18} {len(texts)} pages, {rejected} rejected by datatrove"
    for what, splitter in (("same words", spacy_splitter()), ("own words", None)):
        judge = ours(name, splitter)
        got = [judge(text) for text in texts]
        same = sum(a == b for a, b in zip(wanted, got, strict=True))
        kept = sum(bool(a[0]) == bool(b[0]) for a, b in zip(wanted, got, strict=True))
        line += f"; {what}: {same / len(texts):.2%} equal, {kept / len(texts):.2%} kept alike"
        show_differences(what, wanted, got, examples)
    print(line, flush=True)


def show_differences(what: str, wanted: list[Outcome], got: list[Outcome], examples: int) -> None:
    """Where two differ, by reason."""
    pairs = zip(wanted, got, strict=True)
    found = [(i, a[0], b[0]) for i, (a, b) in enumerate(pairs) if a != b]
    kinds = Counter((a or "kept", b or "kept") for _, a, b in found)
    for (a, b), times in kinds.most_common(examples):
        first = next(i for i, c, d in found if (c or "kept", d or "kept") == (a, b))
        print(f"  {what}: datatrove {a}, ours {b}: {times}, such as page {first}")


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


def url_rules(addresses: Sequence[str], folder: Path) -> tuple[Rule, Any]:
    """Both rules with every fifth domain of the addresses, and some words of theirs."""
    extract = importlib.import_module("tldextract").TLDExtract(suffix_list_urls=())
    lists = {
        "domains": sorted({extract(a).registered_domain for a in addresses} - {""})[::5],
        "words": ["click", "archive"],
        "soft_words": ["html", "index", "www", "list", "mail"],
        "parts": ["kernel"],
    }
    for name, entries in lists.items():
        (folder / name).write_text("\n".join(entries), encoding="utf-8")
    peer = peers.URLFilter(
        use_integrated_lists=False,
        extra_domains=lists["domains"],
        banned_words=lists["words"],
        soft_banned_words=lists["soft_words"],
        banned_subwords=lists["parts"],
    )
    peer.tldextractor = extract
    return Urls(**{name: folder / name for name in lists}), peer


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
    same = 1 - differ.total() / max(len(documents), 1)
    print(f"{name:18} {len(documents)}, {rejected} rejected by datatrove; {same:.2%} kept alike")
    for what, times in differ.items():
        print(f"  {what}: {times}")


def compare_speed(texts: Sequence[str], rounds: int) -> None:
    """All rules in turn, a text's first verdict ending its trial, as pipelines do."""

    def chain(judges: list[Callable[[str], Outcome]]) -> Callable[[], None]:
        def run() -> None:
            for text in texts:
                left = text
                for judge in judges:
                    reason, left = judge(left)
                    if reason:
                        break

        return run

    timed = {"all rules": (chain([theirs(n) for n in PAIRS]), shared_chain(texts))}
    for name in PAIRS:
        timed[name] = (chain([theirs(name)]), chain([ours(name, None)]))
    for what, (their, our) in timed.items():
        seconds = []
        for _ in range(rounds):
            split_into_parts.cache_clear()
            start = time.perf_counter()
            their()
            middle = time.perf_counter()
            our()
            seconds.append((middle - start, time.perf_counter() - middle))
        report_speed(what, seconds, len(texts))


def shared_chain(texts: Sequence[str]) -> Callable[[], None]:
    """All our rules as the stage runs them, the words cut once."""
    judges: list[Judge] = [rule().prepare() for rule, _ in PAIRS.values()]

    def run() -> None:
        for text in texts:
            page = Page(Record("", text))
            any(judge(page) for judge in judges)

    return run


def report_speed(what: str, seconds: list[tuple[float, float]], count: int) -> None:
    """Documents a second of both, medians; and the ratios."""
    ratios = sorted(their / our for their, our in seconds)
    their, our = (count / statistics.median(column) for column in zip(*seconds, strict=True))
    span = f"{statistics.median(ratios):.1f} [{ratios[0]:.1f}..{ratios[-1]:.1f}]"
    print(f"{what:18} datatrove {their:,.0f} pages/s   ours {our:,.0f}   ratio {span}", flush=True)


def compare_languages(pages: list[dict[str, Any]], model: Path | None) -> None:
    """How many languages are right, by eldc and by a fastText model, and how fast."""
    detectors = {"eldc, samples": detector(None, samples=8)}
    if model is not None:
        detectors["fastText"] = detector(model, samples=8)
    for what, detect in detectors.items():
        start = time.perf_counter()
        found = [detect(page["text"])[0] for page in pages]
        seconds = time.perf_counter() - start
        right = Counter[str]()
        for page, language in zip(pages, found, strict=True):
            right[page["language"]] += language == page["language"]
        share = right.total() / max(len(pages), 1)
        print(f"{what}: {share:.1%} of {len(pages)} right, {len(pages) / seconds:,.0f} pages/s")
        total = Counter(page["language"] for page in pages)
        shares = (f"{name} {right[name] / total[name]:.0%}" for name in sorted(total))
        print("  " + ", ".join(shares))


if __name__ == "__main__":
    sys.exit(main())
