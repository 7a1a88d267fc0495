"""Tokens by source, and what a blend makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from megatron_jobs.data.report.words import say_bytes, say_count, say_share
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.trained_tokens import TrainedSource
from megatron_jobs.page.bars import Bar, draw_bars
from megatron_jobs.page.elements import Element, join, table, tag


def draw_tokens(files: Sequence[tuple[str, TokenFacts]]) -> Element:
    """Tokens of each token file, and how many bytes stand in one."""
    total = sum(facts.tokens for _, facts in files)
    bars = [
        Bar(name, [("first", facts.tokens)], f"{say_count(facts.tokens)} · {_share(facts, total)}")
        for name, facts in files
    ]
    heads = ["source", "#documents", "#tokens", "#text", "#bytes a token"]
    rows = [_row(name, facts) for name, facts in files]
    numbers = table("Tokens by source", heads, rows, foot=[])
    details = tag("details", tag("summary", "as numbers"), numbers)
    return join(draw_bars("Tokens by source", bars), details)


def _share(facts: TokenFacts, total: int) -> str:
    return say_share(facts.tokens, total)


def _row(name: str, facts: TokenFacts) -> list[str]:
    size = facts.text_bytes
    ratio = "–" if not size or not facts.tokens else f"{size / facts.tokens:.2f}"
    text = "–" if size is None else say_bytes(size)
    return [name, say_count(facts.documents), say_count(facts.tokens), text, ratio]


def draw_blend(index: Mapping[str, Any], sources: Sequence[TrainedSource]) -> Element:
    """Each source's share of the samples, beside its share of the tokens.

    Args:
        index: index.json of an index job.
        sources: what training reads of each.
    """
    samples = sum(source.samples for source in sources)
    total = sum(source.tokens for source in sources)
    bars, rows = [], []
    for source in sources:
        share = say_share(source.samples, samples)
        bars.append(Bar(source.name, [("kept", source.samples)], f"{share} of the samples"))
        held, passes = say_share(source.tokens, total), f"{source.times_read:.2f}"
        rows.append([source.name, share, held, passes, say_count(source.samples)])
    heads = ["source", "#of the samples", "#of the tokens", "#times read", "#samples"]
    words = f"{say_count(samples)} samples of {say_count(index['seq_len'])} tokens"
    numbers = table("The blend", heads, rows, foot=[])
    plot = draw_bars("Samples of each source", bars)
    return join(tag("p", f"{words}{_order(index)}."), plot, numbers)


def _order(index: Mapping[str, Any]) -> str:
    """In which order samples come, where they are not simply shuffled."""
    found = index.get("curriculum")
    if not found:
        return ""
    by = found["key"] if found["by"] == "score" else found["by"]
    return f", the easy ones first, by {by}; all are drawn from after {found['until']:.0%} of them"
