"""Plots of counts: bars that lie, one a row, and columns that stand side by side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from megatron_jobs.page.elements import Element, join, tag

TONES = ("kept", "first", "second", "third", "fourth", "fifth")
"""Of the parts of a bar; page.css knows their colours."""
STEPS = 4
"""Of the scale beside columns, at most."""


@dataclass(frozen=True)
class Bar:
    """One row of `draw_bars`."""

    name: str
    parts: Sequence[tuple[str, float]]
    """(tone, value), from left to right."""
    said: str
    """The values in words, at the end of the row."""


def draw_bars(title: str, bars: Sequence[Bar]) -> Element:
    """Rows of bars on one scale from 0, below a title that says what is counted."""
    most = max((sum(value for _, value in bar.parts) for bar in bars), default=0) or 1
    rows = [
        tag(
            "div",
            tag("span", bar.name, class_="who", title=bar.name),
            tag("span", *_parts(bar, most), class_="track thin"),
            tag("span", bar.said, class_="said"),
            class_="row",
            role="listitem",
        )
        for bar in bars
    ]
    return _figure(title, tag("div", *rows, class_="bars", role="list", aria_label=title))


def _parts(bar: Bar, most: float) -> list[Element]:
    """A value above 0 is seen, however small."""
    left, found = 0.0, []
    for tone, value in bar.parts:
        share = 100 * value / most
        if value > 0:
            style = f"left:{left:.2f}%;width:max({share:.2f}%,2px)"
            found.append(tag("i", class_=f"part is-{tone}", style=style))
        left += share
    return found


@dataclass(frozen=True)
class Column:
    """One place on the axis of `draw_columns`."""

    name: str
    values: Sequence[float]
    """One a series."""
    said: str
    """What is shown when it is pointed at."""


def draw_columns(
    title: str, series: Sequence[str], columns: Sequence[Column], *, along: str = ""
) -> Element:
    """Columns on one scale from 0, those of each place side by side.

    Args:
        title: says what is counted, and in what unit.
        series: names, for the key; their tones are TONES in order.
        along: what the names below the columns are; empty where that is plain.
    """
    most = max((value for column in columns for value in column.values), default=0)
    step = _step(most or 1)
    top = step * ceil((most or 1) / step)
    places = [
        tag(
            "div",
            tag("div", *_columns(column, top), class_="pair"),
            tag("span", column.name, class_="under"),
            title=column.said,
            class_="place",
            role="listitem",
            aria_label=column.said,
        )
        for column in columns
    ]
    scale = tag("div", *_scale(step, top), class_="scale", aria_hidden="true")
    plot = tag("div", scale, *places, class_="columns", role="list", aria_label=title)
    below = tag("p", along, class_="along") if along else Element("")
    return _figure(title, join(plot, below, key_of(dict(zip(series, TONES, strict=False)))))


def _step(most: float) -> float:
    """1, 2 or 5 times a power of ten: the least that reaches `most` in a few steps."""
    power = 10.0 ** floor(log10(most / STEPS))
    return next(power * times for times in (1, 2, 5, 10) if power * times * STEPS >= most)


def _scale(step: float, top: float) -> Iterator[Element]:
    for number in range(round(top / step) + 1):
        value = number * step
        yield tag("span", f"{value:,.10g}", style=f"bottom:{100 * value / top:.2f}%")


def _columns(column: Column, top: float) -> list[Element]:
    heights = [100 * value / top for value in column.values]
    return [
        tag("i", class_=f"part is-{tone}", style=f"height:max({height:.2f}%,{int(height > 0)}px)")
        for tone, height in zip(TONES, heights, strict=False)
    ]


def _figure(title: str, plot: Element) -> Element:
    return tag("figure", tag("figcaption", title), plot)


def key_of(tones: Mapping[str, str]) -> Element:
    """What the colours stand for: name -> tone; nothing for a single one."""
    if len(tones) < 2:
        return Element("")
    items = [tag("li", tag("span", class_=f"dot is-{tone}"), name) for name, tone in tones.items()]
    return tag("ul", *items, class_="key")
