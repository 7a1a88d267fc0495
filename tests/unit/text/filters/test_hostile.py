"""Texts that nobody wrote: every rule has an answer, in a time that grows with the text alone."""

import time

import pytest

from megatron_jobs.text.extract import Extractor, ExtractRules
from megatron_jobs.text.filters.c4 import C4
from megatron_jobs.text.filters.code import Code
from megatron_jobs.text.filters.fineweb import FineWeb
from megatron_jobs.text.filters.gopher_quality import GopherQuality
from megatron_jobs.text.filters.gopher_repetition import GopherRepetition
from megatron_jobs.text.filters.identify import Identify
from megatron_jobs.text.filters.judging import Judging
from megatron_jobs.text.filters.length import Length
from megatron_jobs.text.filters.lexicon import Lexicon
from megatron_jobs.text.filters.oscar import Oscar
from megatron_jobs.text.filters.quality import Quality
from megatron_jobs.text.filters.rule import Rule
from megatron_jobs.text.filters.symbols import Symbols
from megatron_jobs.text.filters.urls import Urls
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

SIZE = 200_000
PATTERNS = [
    "<", "#", "'", "[1", ".", "/", "a.", "-", " ", "\n", "  \n", "<script>\n", "<\n", "0x41, ",
    "\\u00e9", "bad ", "\0", "\u0301", "中", "🙂", "http://", "&", "{", "\u2028", "- \n", "n't ",
]  # fmt: skip


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Judging:
    """All rules that need no model."""
    words = tmp_path_factory.mktemp("lists") / "words.txt"
    words.write_text("bad word\nbad\n$$\n")
    rules: list[Rule] = [
        GopherQuality(), GopherRepetition(), FineWeb(), C4(), Oscar(), Code(max_data_line=10**9),
        Identify(), Length(min_words=1, min_lines=1), Symbols(max_digits=0.5),
        Lexicon(files={"en": words, "zh": words}), Quality(perplexity_weight=0, safety_weight=0),
        Urls(domains=words, prefixes=words, words=words, parts=words, soft_words=words),
    ]  # fmt: skip
    return Judging(rules, judge_all=True)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_rule_is_done_soon(judging: Judging, pattern: str) -> None:
    """A rule that looked at the rest of the text from each of its characters would take minutes."""
    text = f"x{pattern * (SIZE // len(pattern))}x"
    record = Record("1", text, url=text, metadata={"programming_language": "HTML"})
    began = time.process_time()
    assert isinstance(judging.treat(record), Verdict | Record)
    assert time.process_time() - began < 2.5


@pytest.mark.parametrize("kind", ["text/html", "text/plain", ""])
@pytest.mark.parametrize("pattern", [" ", "\n", "<", "<script>", "&", "\0", "\xef\xbb\xbf", "\xff"])
def test_every_page_is_done_soon(kind: str, pattern: str) -> None:
    payload = (pattern * (SIZE // len(pattern))).encode("latin-1")
    facts = {"content_type": kind} if kind else {"status": 200}
    began = time.process_time()
    found = Extractor(ExtractRules()).treat(Record("1", "", metadata=facts, payload=payload))
    assert isinstance(found, Verdict | Record)
    assert time.process_time() - began < 2.5


def test_lists_are_there(judging: Judging) -> None:
    """The rules above do judge."""
    assert isinstance(judging.treat(Record("1", "bad")), Verdict)
    assert judging.numbers()["judged.lexicon.words"] >= 1
