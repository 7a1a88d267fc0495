"""Elements of HTML and SVG as text: whatever goes in that is not an element is escaped."""

import html
import re
from typing import Any

NAME = re.compile(r"[^A-Za-z0-9]+")


class Element(str):
    """Text that is already HTML."""

    __slots__ = ()


def tag(name: str, *parts: str, **attributes: Any) -> Element:
    """One element with what is in it.

    Args:
        parts: elements as they are; any other text is escaped.
        attributes: `class_` is class, `data_x` is data-x; None leaves one out.
    """
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(map(escaped, parts))
    return Element(f"<{name}{words}>{inside}</{name}>")


def escaped(part: str) -> Element:
    """Text as an element; an element as it is."""
    return part if isinstance(part, Element) else Element(html.escape(part))


def join(*parts: str) -> Element:
    """Elements one after the other."""
    return Element("".join(map(escaped, parts)))


def table(caption: str, heads: list[str], rows: list[list[str]], *, foot: list[str]) -> Element:
    """A table in a box that scrolls sideways; columns after the first whose head begins with `#`
    hold numbers and are set to the right.

    Args:
        caption: read out by screen readers.
        foot: the totals; empty: none.
    """
    right = ["number" if head.startswith("#") else None for head in heads]
    names = [
        tag("th", head.lstrip("#"), scope="col", class_=c)
        for head, c in zip(heads, right, strict=True)
    ]
    parts = [tag("caption", caption, class_="unseen"), tag("thead", tag("tr", *names))]
    parts.append(tag("tbody", *[_row(row, right) for row in rows]))
    if foot:
        parts.append(tag("tfoot", _row(foot, right)))
    return tag(
        "div", tag("table", *parts), class_="scroll", tabindex=0, role="region", aria_label=caption
    )


def _row(cells: list[str], right: list[str | None]) -> Element:
    first = tag("th", cells[0], scope="row")
    rest = [tag("td", cell, class_=c) for cell, c in zip(cells[1:], right[1:], strict=True)]
    return tag("tr", first, *rest)


def short(text: str, most: int) -> str:
    """The beginning of a long text, with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def word(text: str) -> str:
    """A text as a name for CSS and ids."""
    return NAME.sub("-", text.lower()).strip("-")
