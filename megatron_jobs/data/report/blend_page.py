"""The page of a blend report: licences, languages and domains, who is spoken of and how."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from math import exp
from typing import Any

from megatron_jobs.data.report.mixture import draw_orders, draw_shares
from megatron_jobs.data.report.words import say_bytes, say_count, say_share
from megatron_jobs.page import Section, figures, render_page
from megatron_jobs.page.bars import Bar, Column, draw_bars, draw_columns
from megatron_jobs.page.elements import Element, join, table, tag
from megatron_jobs.text.licences import UNKNOWN

Facts = Mapping[str, Any]
"""blend_report.json."""
ROWS = 60
"""Associations on the page; all are in the JSON."""


def render_blend_report(facts: Facts) -> str:
    """The whole page."""
    return render_page(facts["title"], join(*_head(facts)), [*_sections(facts)])


def _head(facts: Facts) -> Iterator[Element]:
    unknown = facts["licence_groups"].get(UNKNOWN, 0.0)
    yield tag("h1", facts["title"])
    pairs = [
        ("tokens read", say_count(facts["tokens"])),
        ("sources", str(len(facts["parts"]))),
        ("documents", say_count(sum(part["documents"] for part in facts["parts"]))),
        ("licence unknown", say_share(unknown, facts["tokens"])),
    ]
    yield figures(pairs)
    yield tag("p", "All shares are of the tokens that training reads.", class_="muted")


def _sections(facts: Facts) -> Iterator[Section]:
    whole = facts["tokens"]
    yield "Sources", _sources(facts)
    yield "Licences", draw_licences(facts)
    yield "Languages", draw_shares("Tokens by language", facts["languages"], whole)
    yield "Years", draw_shares("Tokens by year of their date", facts["years"], whole)
    yield "Domains", _domains(facts)
    yield "Lengths and readability", _lengths(facts)
    yield "Who is spoken of", draw_groups(facts)
    yield "Words near groups", draw_associations(facts)
    if facts["suggestion"]:
        yield "Suggested weights", join(*_suggestion(facts["suggestion"]))


def _sources(facts: Facts) -> Element:
    heads = ["source", "#of the tokens read", "#times read", "#documents", "#text", "#school year"]
    rows = [
        [
            part["name"],
            say_share(part["share"], 1),
            f"{part['times_read']:.2f}",
            say_count(part["documents"]),
            say_bytes(part["bytes"]),
            _grade(part["grade"]),
        ]
        for part in facts["parts"]
    ]
    bars = [
        Bar(part["name"], [("kept", part["share"])], row[1])
        for part, row in zip(facts["parts"], rows, strict=True)
    ]
    named = draw_shares("Tokens by the source that records name", facts["sources"], facts["tokens"])
    numbers = table("Sources", heads, rows, foot=[])
    return join(draw_bars("Shares of the blend", bars), numbers, named)


def _grade(grade: float | None) -> str:
    return "–" if grade is None else f"{grade:.1f}"


def draw_licences(facts: Facts) -> Element:
    """What training reads, by group of licences and by licence."""
    whole, unnamed = facts["tokens"], facts["unnamed_licence"]
    unknown = facts["licence_groups"].get(UNKNOWN, 0.0)
    said = f"{say_share(unknown, whole)} of the tokens have a licence that is unknown"
    why = f"{say_share(unnamed, whole)} name none, {say_share(unknown - unnamed, whole)} one that"
    return join(
        tag("p", f"{said}: {why} is in no group."),
        draw_shares("Tokens read by group of licences", facts["licence_groups"], whole),
        draw_shares("Tokens read by licence", facts["licences"], whole),
    )


def _domains(facts: Facts) -> Element:
    spread = facts["domain_entropy"]
    said = (
        f"{say_count(spread['domains'])} named, {spread['bits']:.2f} bits: as even as "
        f"{spread['equal_domains']:.1f} of one size."
    )
    return join(tag("p", said), draw_shares("Tokens by domain", facts["domains"], facts["tokens"]))


def _lengths(facts: Facts) -> Element:
    grades = [
        Column(year, [count], f"{say_count(count)} documents of school year {year}")
        for year, count in facts["grades"].items()
    ]
    said = f"All words together ask for school year {_grade(facts['grade'])} (automated "
    title = "Documents read by the school year that they ask for"
    return join(
        draw_orders("Documents read by length", {"documents": facts["lengths"]}),
        tag("h3", "Readability"),
        tag("p", f"{said}readability index, English only).", class_="muted"),
        draw_columns(title, ("documents",), grades, along="school year"),
    )


def draw_groups(facts: Facts, most: int | None = None) -> Element:
    """Mentions of groups of people, by category.

    Args:
        most: groups of a category that are told; the others as one sum. None for all.
    """
    share = say_share(facts["documents_with_words"], 1)
    words = say_count(facts["words"])
    said = f"In a million of {words} words, and as shares of the mentions in each category; "
    parts = [tag("p", f"{said}{share} of the documents are in the languages that were counted.")]
    for category, found in groupby(facts["groups"], key=lambda one: one["category"]):
        title = f"{category.capitalize()}: mentions in a million words"
        parts.append(draw_bars(title, [*_mentions([*found], most)]))
    return join(*parts)


def _mentions(groups: Sequence[Facts], most: int | None) -> Iterator[Bar]:
    whole = sum(one["mentions"] for one in groups)
    shown = [(one["group"], "first", one) for one in groups[:most]]
    if rest := groups[len(shown) :]:
        sums = {of: sum(one[of] for one in rest) for of in ("per_million", "mentions")}
        shown.append((f"{len(rest)} more", "third", sums))
    for name, tone, one in shown:
        share = say_share(one["mentions"], whole)
        yield Bar(name, [(tone, one["per_million"])], f"{one['per_million']:,.1f} · {share}")


def draw_associations(facts: Facts, most: int = ROWS) -> Element:
    """Words of each tone near each group beside those elsewhere, most different first."""
    found: Sequence[Facts] = facts["associations"]
    if not found:
        return tag("p", "No group was mentioned.", class_="muted")
    heads = ["group", "words that are", "#near it", "#elsewhere", "#odds", "#95 %", "#found"]
    rows = [
        [
            one["group"].replace(".", ": ", 1),
            one["tone"],
            f"{one['near']:,.0f}",
            f"{one['elsewhere']:,.0f}",
            f"× {exp(one['log_odds']):.2f}",
            f"{exp(one['low']):.2f} – {exp(one['high']):.2f}",
            f"{say_count(one['hits'])} of {say_count(one['words'])}",
        ]
        for one in found[:most]
    ]
    clear = sum(1 for one in found if one["distance"] > 0)
    chance = f"by chance alone some {len(found) / 20:.0f} would"
    said = (
        f"{clear} of {len(found)} differ beyond their 95 % interval; {chance}. In a million words."
    )
    return join(tag("p", said), table("Words near groups", heads, rows, foot=[]), _examples(facts))


def _examples(facts: Facts) -> Element:
    rows = [
        [key.replace("|", ", "), example["document"], example["words"]]
        for key, found in sorted(facts["examples"].items())
        for example in found
    ]
    if not rows:
        return Element("")
    examples = table("Examples", ["near", "document", "words"], rows, foot=[])
    return tag("details", tag("summary", f"{len(rows)} examples"), examples)


def _suggestion(facts: Facts) -> Iterator[Element]:
    heads = [facts["property"], "#target", "#now", "#suggested"]
    rows = [
        [name, *(say_share(facts[of][name], 1) for of in ("target", "present", "suggested"))]
        for name in facts["target"]
    ]
    yield table("Shares", heads, rows, foot=[])
    heads = ["source", "#weight now", "#suggested", "#times read then"]
    rows = [
        [
            one["name"],
            f"{one['present']:.4f}",
            f"{one['suggested']:.4f}",
            "–" if one["times_read"] is None else f"{one['times_read']:.2f}",
        ]
        for one in facts["weights"]
    ]
    yield table("Weights", heads, rows, foot=[])
    yield tag("h3", "For the index job")
    yield tag("pre", facts["yaml"])
