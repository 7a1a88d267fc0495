"""What a job has cost so far: hours, CPU-hours, GPU-hours, energy, money."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from megatron_jobs.config.site import Prices
from megatron_jobs.jobs.cluster import profile_text
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.starts import Start

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one job, or of several."""

    hours: float = 0.0
    """Wall time in which it ran, added up over jobs. Waiting does not count, and starts at the same
    time, of tasks, count once."""
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    joules: float | None = None
    """None: nothing measured it."""
    partly: bool = False
    """Whether there were starts whose energy nothing measured, beside those in `joules`."""
    money: dict[str, float] = field(default_factory=dict)
    """By currency; empty where no prices are known."""

    def __add__(self, other: "Costs") -> "Costs":
        known = [part for part in (self.joules, other.joules) if part is not None]
        unmeasured = any(part.hours and part.joules is None for part in (self, other))
        currencies = list(dict.fromkeys([*self.money, *other.money]))
        return Costs(
            hours=self.hours + other.hours,
            cpu_hours=self.cpu_hours + other.cpu_hours,
            gpu_hours=self.gpu_hours + other.gpu_hours,
            joules=sum(known) if known else None,
            partly=self.partly or other.partly or bool(known and unmeasured),
            money={name: self.money.get(name, 0) + other.money.get(name, 0) for name in currencies},
        )

    def as_record(self) -> dict[str, Any]:
        """As plain values, rounded to what can be meant."""
        return {
            "hours": round(self.hours, 4),
            "cpu_hours": round(self.cpu_hours, 4),
            "gpu_hours": round(self.gpu_hours, 4),
            "joules": self.joules,
            "partly": self.partly,
            "money": {name: round(amount, 4) for name, amount in self.money.items()},
        }


def costs_of(
    starts: Sequence[Start], prices: Prices | None, *, now: float, joules: float | None = None
) -> Costs:
    """The costs of all starts of a job.

    Args:
        prices: None where nobody has said any.
        now: until when a start that goes on counts, in seconds since 1970.
        joules: what the job's receipt says, for where Slurm does not measure energy.
    """
    hours = [start.seconds(now) / 3600 for start in starts]
    measured = [start.joules for start in starts if start.joules is not None]
    cpu_hours = sum(h * start.cpus for h, start in zip(hours, starts, strict=True))
    gpu_hours = sum(h * start.gpus for h, start in zip(hours, starts, strict=True))
    energy = sum(measured) if measured else joules
    return Costs(
        hours=_covered([(start.began, start.seconds(now)) for start in starts]) / 3600,
        cpu_hours=cpu_hours,
        gpu_hours=gpu_hours,
        joules=energy,
        partly=0 < len(measured) < len(starts),
        money=_money(prices, cpu_hours, gpu_hours, energy) if starts else {},
    )


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds in which at least one went on, of (begin, seconds) of each."""
    total, until = 0.0, float("-inf")
    for began, seconds in sorted(spans):
        total += max(0.0, began + seconds - max(began, until))
        until = max(until, began + seconds)
    return total


def prices_of(folder: JobFolder) -> Prices | None:
    """The prices in the profile that the job was submitted with; None where unknown."""
    text = profile_text(folder)
    return None if text is None else _prices_in(text)


def _money(
    prices: Prices | None, cpu_hours: float, gpu_hours: float, joules: float | None
) -> dict[str, float]:
    if prices is None or not (prices.cpu_hour or prices.gpu_hour or prices.kwh):
        return {}
    energy = prices.kwh * (joules or 0) / JOULES_PER_KWH
    return {prices.currency: prices.cpu_hour * cpu_hours + prices.gpu_hour * gpu_hours + energy}


@functools.lru_cache(maxsize=8)
def _prices_in(text: str) -> Prices:
    return Prices.model_validate((yaml.safe_load(text) or {}).get("prices") or {})
