"""C4's rules: lines that are no sentences go, and pages with too few that are."""

import re
from typing import Literal

from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Judge, Rule
from megatron_jobs.text.shards import Verdict

CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
ENDS = (".", "?", "!", '"', "'")


class C4(Rule):
    """C4's rules; lines that break one are removed from the text, and counted.

    Its bad words are the rule `lexicon`. Source: Raffel et al. 2020, section 2.2, and the code
    of TensorFlow Datasets that made it, as in datatrove.
    """

    rule: Literal["c4"] = "c4"
    min_sentences: int = 5
    """In the lines that are kept."""
    min_words_per_line: int = 3
    """Words between spaces; a line of fewer is removed."""
    max_word_length: int = 1000
    """Characters; a line with a longer word is removed."""
    terminal_punctuation: bool = True
    """Remove lines that do not end as a sentence does."""
    remove_citations: bool = True
    """Cut [1], [edit] and [citation needed] out of lines."""
    remove_javascript: bool = True
    """Remove lines that speak of JavaScript."""
    remove_policies: bool = True
    """Remove lines that speak of cookies, terms of use and privacy."""
    reject_lorem_ipsum: bool = True
    """Reject pages with filler text."""
    reject_curly_bracket: bool = True
    """Reject pages with an opening curly bracket: most are code."""

    def prepare(self) -> Judge:
        """The judge."""
        return self._judge

    def _judge(self, page: Page) -> Verdict | None:
        kept: list[str] = []
        removed: list[str] = []
        for line in map(str.strip, page.text.splitlines()):
            words = line.split()
            if self.remove_citations and "[" in line:
                line = CITATION.sub("", line)
            why = self._why_not(line, words)
            if why.startswith("!"):
                return Verdict(f"c4.{why[1:]}", line[:100], "none")
            (removed if why else kept).append(why or line)
        sentences = sum(page.cut(line).sentences() for line in kept)
        if sentences < self.min_sentences:
            return Verdict("c4.too_few_sentences", sentences, self.min_sentences)
        page.rewrite("\n".join(kept).strip())
        page.counts["c4.lines_kept"] += len(kept)
        page.counts.update(f"c4.lines_removed.{why}" for why in removed)
        return None

    def _why_not(self, line: str, words: list[str]) -> str:
        """Why a line is removed; with a ! before it when the whole page is; or nothing."""
        if len(line) > self.max_word_length and max(map(len, words)) > self.max_word_length:
            return "long_word"
        if self.terminal_punctuation and (not line.endswith(ENDS) or line.endswith("...")):
            return "no_terminal_punctuation"
        if len(words) < self.min_words_per_line:
            return "too_few_words"
        lowered = line.lower()
        if self.reject_lorem_ipsum and "lorem ipsum" in lowered:
            return "!lorem_ipsum"
        if self.remove_javascript and "javascript" in lowered:
            return "javascript"
        if self.reject_curly_bracket and "{" in line:
            return "!curly_bracket"
        if self.remove_policies and any(policy in lowered for policy in POLICIES):
            return "policy"
        return ""
