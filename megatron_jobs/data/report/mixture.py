"""What a corpus is made of: shares by name, and lengths."""

from collections.abc import Mapping

from megatron_jobs.data.report.words import say_count, say_share
from megatron_jobs.page.bars import Bar, Column, draw_bars, draw_columns
from megatron_jobs.page.elements import Element, tag
from megatron_jobs.text.passes import Counts

SHOWN = 30
UNKNOWN = "not known"


def draw_shares(title: str, counts: Mapping[str, float], whole: float) -> Element:
    """A bar a name, most first; those without a name are told as well."""
    if not counts:
        return tag("p", "Nothing was kept.", class_="muted")
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    bars = [
        Bar(name or UNKNOWN, [("first", n)], f"{say_count(n)} · {say_share(n, whole)}")
        for name, n in ranked[:SHOWN]
    ]
    rest = sum(n for _, n in ranked[SHOWN:])
    if rest:
        names = f"{len(ranked) - SHOWN} more"
        bars.append(Bar(names, [("third", rest)], f"{say_count(rest)} · {say_share(rest, whole)}"))
    return draw_bars(title, bars)


def draw_lengths(before: Counts, after: Counts) -> Element:
    """Documents by their bytes, in powers of two: kept by the first stage and by the last."""
    series = {"extracted": before.lengths, "in the end": after.lengths}
    return draw_orders("Documents by length", series)


def draw_orders(title: str, series: Mapping[str, Mapping[str, float]]) -> Element:
    """Columns of what was counted by the binary order of its bytes: "3" is from 4 to 7.

    Args:
        series: name -> order -> count.
    """
    orders = [int(order) for counts in series.values() for order in counts]
    if not orders:
        return tag("p", "Nothing was kept.", class_="muted")
    columns = []
    for order in range(min(orders), max(orders) + 1):
        low = _power(order - 1) if order else "0"
        values = [counts.get(str(order), 0) for counts in series.values()]
        numbers = ", ".join(
            f"{say_count(n)} {name}" for n, name in zip(values, series, strict=True)
        )
        columns.append(Column(low, values, f"{low} to {_power(order)} bytes: {numbers}"))
    return draw_columns(title, tuple(series), columns, along="bytes at least")


def _power(order: int) -> str:
    """A power of two, such as 512 or 4 Ki."""
    return f"{1 << order % 10}{' ' + 'KMGTPE'[order // 10 - 1] + 'i' if order >= 10 else ''}"
