"""How many records each stage kept, and which rule took the others."""

from collections.abc import Sequence

from megatron_jobs.data.report.words import say_bytes, say_count, say_share
from megatron_jobs.page.bars import Bar, draw_bars, key_of
from megatron_jobs.page.elements import Element, join, table, tag
from megatron_jobs.text.passes import Counts

Steps = Sequence[tuple[str, Counts]]
RULES = 40
"""Rows of the table of rules; the rest is added up in the last."""


def draw_funnel(steps: Steps) -> Element:
    """A bar a stage, and the same as a table."""
    bars = [
        Bar(
            name,
            [
                ("kept", counts.kept),
                ("second", sum(counts.rejected.values())),
                ("third", sum(counts.quarantined.values())),
            ],
            f"{say_count(counts.kept)} of {say_count(counts.read)}",
        )
        for name, counts in steps
    ]
    key = key_of({"kept": "kept", "rejected": "second", "no record": "third"})
    heads = ["stage", "#in", "#kept", "#rejected", "#no record", "#text in", "#text kept"]
    numbers = table("Records by stage", heads, [_row(name, c) for name, c in steps], foot=[])
    details = tag("details", tag("summary", "as numbers"), numbers)
    return join(draw_bars("Records kept by each stage", bars), key, details)


def _row(name: str, counts: Counts) -> list[str]:
    rejected, none = sum(counts.rejected.values()), sum(counts.quarantined.values())
    numbers = [say_count(n) for n in (counts.read, counts.kept, rejected, none)]
    return [name, *numbers, say_bytes(counts.bytes_read), say_bytes(counts.bytes_kept)]


def draw_rules(steps: Steps) -> Element:
    """Every rule with what it took, most first."""
    taken = [
        (count, step, rule, counts.read)
        for step, counts in steps
        for rule, count in (counts.rejected | counts.quarantined).items()
    ]
    taken.sort(key=lambda row: -row[0])
    if not taken:
        return tag("p", "Nothing was rejected.", class_="muted")
    bars = [
        Bar(
            f"{step}: {rule}", [("second", count)], f"{say_count(count)} · {say_share(count, read)}"
        )
        for count, step, rule, read in taken[:RULES]
    ]
    rest = sum(row[0] for row in taken[RULES:])
    if rest:
        more = len(taken) - RULES
        bars.append(Bar(f"{more} more rules", [("third", rest)], say_count(rest)))
    return draw_bars("Records taken by each rule", bars)
