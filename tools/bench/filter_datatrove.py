#!/usr/bin/env python3
"""datatrove's filters by our names, beside ours: what tools/bench/filter.py compares.

    filter_datatrove.py datatrove|ours PAGES COUNT TASK/TASKS

runs the four rules of PAIRS over the first COUNT lines of a file, with reading and writing, in one
process; the last line it prints is JSON: seconds, without imports and the loading of tokenizers.
"""

import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from megatron_jobs.text.filters.c4 import C4
from megatron_jobs.text.filters.fineweb import FineWeb
from megatron_jobs.text.filters.gopher_quality import GopherQuality
from megatron_jobs.text.filters.gopher_repetition import GopherRepetition
from megatron_jobs.text.filters.page import Page, Splitter
from megatron_jobs.text.filters.rule import Judge, Rule
from megatron_jobs.text.filters.urls import Urls
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

try:
    from datatrove.data import Document
    from datatrove.pipeline import filters as peers
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
WARMING = "The ships left the harbour before the wind turned, and nobody said a word of it. " * 9
Outcome = tuple[str, str]
"""Why a text is rejected, or nothing; the text after."""


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


def verdicts(name: str, splitter: Splitter | None) -> Callable[[str], tuple[Verdict | None, str]]:
    """Our verdict of a text, and the text after."""
    judge: Judge = PAIRS[name][0]().prepare()

    def found(text: str) -> tuple[Verdict | None, str]:
        page = Page(Record("", text), splitter)
        return judge(page), page.text

    return found


def ours(name: str, splitter: Splitter | None) -> Callable[[str], Outcome]:
    """The same in words."""
    judge = verdicts(name, splitter)

    def outcome(text: str) -> Outcome:
        verdict, after = judge(text)
        return reason_of(verdict), after

    return outcome


def reason_of(verdict: Verdict | None) -> str:
    """The test that failed, or nothing."""
    return verdict.rule.partition(".")[2] if verdict else ""


def url_rules(addresses: Sequence[str], folder: Path) -> tuple[Rule, Any]:
    """Both rules with every fifth domain of the addresses, and some words of theirs."""
    extract = importlib.import_module("tldextract").TLDExtract(suffix_list_urls=())
    domains = {extract(a).top_domain_under_public_suffix for a in addresses} - {""}
    lists = {
        "domains": sorted(domains)[::5],
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


def run_datatrove(pages: Path, out: Path, share: tuple[int, int]) -> float:
    """Its own pipeline, one worker; returns seconds."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    assert share == (0, 1), share
    rules = [getattr(peers, name)() for _, name in PAIRS.values()]
    stages = [JsonlReader(str(pages.parent), glob_pattern=pages.name), *rules]
    stages.append(JsonlWriter(str(out / "documents")))
    for rule in rules:
        rule.filter(Document(text=WARMING, id=""))
    began = time.perf_counter()
    LocalPipelineExecutor(stages, tasks=1, workers=1, logging_dir=str(out / "logs")).run()
    return time.perf_counter() - began


def run_ours(pages: Path, out: Path, share: tuple[int, int]) -> float:
    """The stage `filter`; returns seconds."""
    from megatron_jobs.runtime.rank import Rank
    from megatron_jobs.stages import filter as stage

    importlib.import_module("megatron_jobs.text.passes")
    given = {"input": [pages], "rules": [{"rule": name} for name in PAIRS], "unit_mb": 1}
    config = stage.Config.model_validate(given)
    for name in PAIRS:
        verdicts(name, None)(WARMING)
    task, tasks = share
    began = time.perf_counter()
    stage.run(config, replace(Rank(), task=task, tasks=tasks), out)
    return time.perf_counter() - began


def main() -> int:
    """One process of a timed round."""
    who, pages, count, share = sys.argv[1:5]
    folder = Path(tempfile.mkdtemp())
    try:
        with Path(pages).open("rb") as file:
            first = [line for line, _ in zip(file, range(int(count)), strict=False)]
        (folder / "in").mkdir()
        (folder / "in/pages.jsonl").write_bytes(b"".join(first))
        task, _, tasks = share.partition("/")
        run = {"datatrove": run_datatrove, "ours": run_ours}[who]
        seconds = run(folder / "in/pages.jsonl", folder / "out", (int(task), int(tasks)))
    finally:
        shutil.rmtree(folder)
    print(json.dumps({"seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
