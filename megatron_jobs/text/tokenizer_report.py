"""The tables of a comparison of tokenizers: for the terminal, and as a page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megatron_jobs.page import render_page
from megatron_jobs.page.bars import TONES, Bar, Column, draw_bars, draw_columns
from megatron_jobs.page.elements import Element, join, table, tag

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
    sections = [(title, _fertility(report, *what)) for title, *what in TABLES]
    sections.append(("Vocabularies", _numbers("Vocabularies", *_vocabularies(report))))
    sections.append(("Longest tokens", _longest(report)))
    if report["curve"]:
        sections.append(
            ("Size of the vocabulary", join(_bars(report), tag("p", _suggested(report))))
        )
    texts, size = report["texts"], report["bytes"] / 1e6
    head = join(tag("h1", "Tokenizers"), tag("p", f"{texts} texts, {size:.1f} MB"))
    return render_page("Tokenizers", head, sections)


def draw_fertility(report: Mapping[str, Any]) -> Element:
    """What the tokenizers of a report make of each language: plots, and tables to open."""
    plots = [_columns(report, name, f"{title} ({note})") for title, name, note in TABLES]
    titles = [tag("h3", title) for title, _, _ in TABLES]
    numbers = [_numbers(title, *_by_language(report, name)) for title, name, _ in TABLES]
    parts = [part for pair in zip(titles, numbers, strict=True) for part in pair]
    vocabularies = _numbers("Vocabularies", *_vocabularies(report))
    details = tag("details", tag("summary", "as numbers"), *parts, vocabularies)
    return join(*plots, details)


def _fertility(report: Mapping[str, Any], name: str, note: str) -> Element:
    title = next(title for title, other, _ in TABLES if other == name)
    numbers = _numbers(title, *_by_language(report, name))
    return join(_columns(report, name, f"{title} ({note})"), numbers)


def _columns(report: Mapping[str, Any], name: str, title: str) -> Element:
    """Columns by language, of as many tokenizers as there are colours."""
    (_, *names), rows = _by_language(report, name)
    shown = names[: len(TONES)]
    if len(names) > len(shown):
        title = f"{title}; the first {len(shown)} of {len(names)} tokenizers"
    columns = [
        Column(
            language,
            [float(cell) for cell in cells[: len(shown)]],
            f"{language}: {', '.join(map(' '.join, zip(shown, cells, strict=False)))}",
        )
        for language, *cells in rows
    ]
    return draw_columns(title, shown, columns, along="language")


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
    return table("Longest tokens", ["tokenizer", "longest tokens"], rows, foot=[])


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


def _numbers(caption: str, head: Row, rows: list[Row]) -> Element:
    """A table of a page, all but its first column to the right."""
    first, *others = head
    return table(caption, [first, *(f"#{name}" for name in others)], rows, foot=[])
