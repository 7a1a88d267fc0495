"""HTML pages that are one file: everything is in them, and nothing is fetched from anywhere."""

from pathlib import Path
from string import Template

from megatron_jobs.page.elements import Element, join, tag, word

HERE = Path(__file__).parent
Section = tuple[str, Element]
"""Heading and content."""


def render_page(title: str, head: Element, sections: list[Section], *, script: str = "") -> str:
    """A whole page: a head, links to the sections, and a card for each of them.

    Args:
        script: JavaScript that runs at the end; it may show words in the element #tip.
    """
    links = [tag("a", name, href=f"#{word(name)}") for name, _ in sections]
    cards = [tag("section", tag("h2", name), part, id=word(name)) for name, part in sections]
    header = tag("header", head, tag("nav", *links, aria_label="Sections"))
    return Template(_text("page.html")).substitute(
        title=tag("title", title),
        body=join(header, tag("main", *cards)),
        style=_text("page.css"),
        script=script,
    )


def figures(pairs: list[tuple[str, str]]) -> Element:
    """The figures that are asked for first: (name, value)."""
    return tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs])


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
