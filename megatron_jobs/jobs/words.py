"""Numbers, times, energy, money and names as people read them."""

import datetime
import time
from collections.abc import Mapping
from typing import Any

from megatron_jobs.jobs.costs import JOULES_PER_KWH


def say_progress(record: Mapping[str, Any]) -> str:
    """A bar, the count, the numbers beside it and the time left; see `runtime.progress`."""
    done, total = record["done"], record["total"]
    share = done / total if total else 1.0
    bar = "=" * int(20 * share)
    left = record["seconds_left"]
    rest = f"{say_seconds(left)} left" if left is not None else ""
    count = f"{done}/{total} {record['unit']}"
    return f"[{bar:<20}] {count}  {say_numbers(record['numbers'])}  {rest}"


def say_seconds(seconds: float) -> str:
    """Minutes and seconds, as 5:07, with hours before them if there are any; from two days on days
    and hours."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24:,} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def say_numbers(numbers: Mapping[str, float]) -> str:
    """Each with its name."""
    return "  ".join(f"{name} {say_number(value)}" for name, value in numbers.items())


def say_number(value: float) -> str:
    """Whole numbers with all their digits, others with about four."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def say_hours(hours: float) -> str:
    """Of GPUs or cores: two figures or more, nothing for none."""
    if hours == 0:
        return ""
    if hours < 0.001:
        return "< 0.001"
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}" if hours < 1 else f"{hours:.1f}"


def say_energy(joules: float | None, *, partly: bool = False) -> str:
    """In kWh, or in Wh below a tenth of one; nothing where it was not measured.

    Args:
        partly: there was more that was not measured.
    """
    if joules is None:
        return ""
    kwh = joules / JOULES_PER_KWH
    said = f"{kwh:,.1f} kWh" if kwh >= 0.1 else f"{kwh * 1000:.2g} Wh"
    return f"at least {said}" if partly else said


def say_money(money: Mapping[str, float]) -> str:
    """Amounts with their currencies."""
    return " + ".join(f"{amount:,.2f} {name}" for name, amount in money.items())


def say_when(seconds: float) -> str:
    """A time of day here, with the date if it is not today's."""
    when, today = time.localtime(seconds), time.localtime()
    same = when[:3] == today[:3]
    return time.strftime("%H:%M" if same else "%a %d %b %H:%M", when)


def say_utc(seconds: float) -> str:
    """Date and time of day in UTC: the same wherever it is read."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S")


def say_name(name: str) -> str:
    """A name as it is; with its odd characters written out if it has some."""
    return name if name.isprintable() else repr(name)
