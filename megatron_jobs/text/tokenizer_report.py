"""The tables of a comparison of tokenizers: for the terminal, and as a page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megatron_jobs.page import render_page
from megatron_jobs.page.bars import Bar, draw_bars
from megatron_jobs.page.elements import Element, join, tag

ALL = "all"
TABLES = (
    ("Bytes per token", "bytes_per_token", "more is better"),
    ("Tokens per word", "tokens_per_word", "fewer is better; words by Unicode's boundaries"),
)
SHARES = ("one_byte", "broken", "unknown")
Row = list[str]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as tables of Markdown."""
    parts = ["# Tokenizers", *_size(report)]
    for title, name, note in TABLES:
        parts += [f"## {title} ({note})", _table(*_by_language(report, name))]
    parts += ["## Vocabularies (shares of tokens; unused: of the vocabulary)"]
    parts += [_table(*_vocabularies(report))]
    if report["curve"]:
        parts += [
            "## Bytes per token by size of the vocabulary (byte-level BPE, on texts kept out)"
        ]
        parts += [_table(*_curve(report)), _suggested(report)]
    return "\n\n".join(parts) + "\n"


def page(report: Mapping[str, Any]) -> str:
    """The report as an HTML page of its own."""
    sections = [
        (title, join(_html_table(*_by_language(report, name)), tag("p", note)))
        for title, name, note in TABLES
    ]
    sections.append(("Vocabularies", _html_table(*_vocabularies(report))))
    sections.append(("Longest tokens", _longest(report)))
    if report["curve"]:
        sections.append(
            ("Size of the vocabulary", join(_bars(report), tag("p", _suggested(report))))
        )
    texts, size = report["texts"], report["bytes"] / 1e6
    head = join(tag("h1", "Tokenizers"), tag("p", f"{texts} texts, {size:.1f} MB"))
    return render_page("Tokenizers", head, sections)


def _by_language(report: Mapping[str, Any], name: str) -> tuple[Row, list[Row]]:
    head = ["language", *report["tokenizers"]]
    found = report["tokenizers"].values()
    languages = sorted({language for one in found for language in one["languages"]})
    rows = [
        [language, *(f"{one['languages'][language][name]:.2f}" for one in found)]
        for language in languages
    ]
    return head, [*rows, [ALL, *(f"{one[ALL][name]:.2f}" for one in found)]]


def _vocabularies(report: Mapping[str, Any]) -> tuple[Row, list[Row]]:
    head = ["tokenizer", "tokens", "one byte", "part of a character", "unknown", "unused"]
    rows = [
        [
            name,
            f"{one['vocabulary']:,}",
            *(f"{one[ALL][share]:.2%}" for share in SHARES),
            f"{one['unused']:.1%}",
        ]
        for name, one in report["tokenizers"].items()
    ]
    return head, rows


def _curve(report: Mapping[str, Any]) -> tuple[Row, list[Row]]:
    rows = [[f"{int(size):,}", f"{found:.3f}"] for size, found in report["curve"].items()]
    return ["size", "bytes per token"], rows


def _suggested(report: Mapping[str, Any]) -> str:
    size, gain = report["suggested"], report["least_gain"]
    if size is None:
        return "The texts give none of these sizes."
    if str(size) == list(report["curve"])[-1]:
        return f"Each doubling gains {gain:.0%} or more: {size:,} or larger."
    return f"Suggested: {size:,}; twice as many gain less than {gain:.0%}."


def _size(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{report['texts']} texts, {report['bytes'] / 1e6:.1f} MB; rejected {report['rejected']}"


def _longest(report: Mapping[str, Any]) -> Element:
    rows = [
        [name, "  ".join(map(repr, one["longest"]))] for name, one in report["tokenizers"].items()
    ]
    return _html_table(["tokenizer", "longest tokens"], rows)


def _bars(report: Mapping[str, Any]) -> Element:
    bars = [
        Bar(f"{int(size):,}", [("first", found)], f"{found:.3f}")
        for size, found in report["curve"].items()
    ]
    return draw_bars("Bytes per token by size of the vocabulary", bars)


def _table(head: Row, rows: Sequence[Row]) -> str:
    """A table of Markdown whose columns stand under each other in plain text too."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(head))]
    rules = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(row, widths) for row in (cells[0], rules, *cells[1:]))


def _line(row: Row, widths: Sequence[int]) -> str:
    first = row[0].ljust(widths[0])
    others = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return f"| {' | '.join([first, *others])} |"


def _html_table(head: Row, rows: Sequence[Row]) -> Element:
    body = [tag("tr", *[tag("td", cell) for cell in row]) for row in rows]
    return tag(
        "table",
        tag("thead", tag("tr", *[tag("th", cell) for cell in head])),
        tag("tbody", *body),
    )
