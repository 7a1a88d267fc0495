"""A plan before it runs: each job with its settings and where they come from."""

import os
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_jobs.config.settings import Settings
from megatron_jobs.jobs.plan import Job, Plan

COLUMNS = 100


def show_plan(plan: Plan) -> None:
    """Print each job: what it waits for, what it asks for, every setting with its origin.

    What a job reads of another stands as in a plan, `@job/output`; lines of the plan's own file by
    their number alone. No line is longer than `COLUMNS`, but for words that are.
    """
    print(f"{plan.shown}: {len(plan.jobs)} jobs in {plan.run}")
    shown = _Shown(plan.shown, plan.run)
    for job in plan.jobs.values():
        print("\n".join(shown.job_lines(job)))


@dataclass(frozen=True)
class _Shown:
    """How the values of one plan are said."""

    plan: str
    run: Path

    def job_lines(self, job: Job) -> Iterator[str]:
        after = f" after {', '.join(job.after)}" if job.after else ""
        yield ""
        yield from _wrapped(f"{job.name} ({job.stage_name}){after}", 0)
        asked = job.resources
        size = f"{asked.nodes} nodes x {asked.ranks} ranks x {asked.cpus} cpus, {asked.gpus} gpus"
        memory = f", {asked.memory_gb:.3g} GiB" if asked.memory_gb else ""
        yield f"  resources: {size}{memory}, {asked.hours:g} h"
        for label, value in getattr(job.stage, "describe", _describe_nothing)(job.config, asked):
            yield from _wrapped(f"{label}: {value}", 1)
        yield from self._setting_lines(job.config, "", job.origins, 1)

    def _setting_lines(
        self, values: Settings, prefix: str, origins: dict[str, str], depth: int
    ) -> Iterator[str]:
        for name in type(values).model_fields:
            value, dotted = getattr(values, name), f"{prefix}{name}"
            parts = {"": value} if isinstance(value, Settings) else {}
            if isinstance(value, (list, tuple)) and value and isinstance(value[0], Settings):
                parts = {f".{place}": item for place, item in enumerate(value)}
            for place, item in parts.items():
                yield f"{'  ' * depth}{name}{place}"
                yield from self._setting_lines(item, f"{dotted}{place}.", origins, depth + 1)
            if not parts:
                origin = self._origin(dotted, origins)
                yield from _wrapped(f"{name}: {self._value(value)}  ({origin})", depth)

    def _value(self, value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(self._value, value)) + "]"
        if isinstance(value, Mapping):
            pairs = (f"{key}: {self._value(item)}" for key, item in value.items())
            return "{" + ", ".join(pairs) + "}"
        if isinstance(value, Path) and value.is_relative_to(self.run):
            return f"@{value.relative_to(self.run)}"
        return os.path.relpath(value) if _is_below_here(value) else str(value)

    def _origin(self, dotted: str, origins: dict[str, str]) -> str:
        below = (where for name, where in origins.items() if name.startswith(f"{dotted}."))
        found = origins.get(dotted) or next(below, "default")
        own, line = found.rpartition(":")[::2]
        return f"line {line}" if own == self.plan else found


def _is_below_here(value: Any) -> bool:
    return isinstance(value, Path) and value.is_absolute() and value.is_relative_to(Path.cwd())


def _describe_nothing(config: Settings, resources: Settings) -> list[tuple[str, str]]:
    return []


def _wrapped(line: str, depth: int) -> list[str]:
    """A line, cut between words where it is too long."""
    space = "  " * depth
    whole = f"{space}{line}"
    if len(whole) <= COLUMNS:
        return [whole]
    fill = textwrap.TextWrapper(COLUMNS, initial_indent=space, subsequent_indent=f"{space}    ")
    fill.break_long_words = fill.break_on_hyphens = False
    return fill.wrap(line)
