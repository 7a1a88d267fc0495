"""A plan before it runs: each job with its settings and where they come from."""

from collections.abc import Iterator
from typing import Any

from megatron_jobs.config.settings import Settings
from megatron_jobs.jobs.plan import Job, Plan


def show_plan(plan: Plan) -> None:
    """Print each job: what it waits for, what it asks for, every setting with its origin."""
    print(f"{plan.shown}: {len(plan.jobs)} jobs in {plan.run}")
    for job in plan.jobs.values():
        print("\n".join(_job_lines(job)))


def _job_lines(job: Job) -> Iterator[str]:
    after = f" after {', '.join(job.after)}" if job.after else ""
    yield f"\n{job.name} ({job.stage_name}){after}"
    asked = job.resources
    size = f"{asked.nodes} nodes x {asked.ranks} ranks x {asked.cpus} cpus, {asked.gpus} gpus"
    yield f"  resources: {size}, {asked.hours:g} h"
    for label, value in getattr(job.stage, "describe", _describe_nothing)(job.config, asked):
        yield f"  {label}: {value}"
    yield from _setting_lines(job.config, "", job.origins, 1)


def _describe_nothing(config: Settings, resources: Settings) -> list[tuple[str, str]]:
    return []


def _setting_lines(
    values: Settings, prefix: str, origins: dict[str, str], depth: int
) -> Iterator[str]:
    space = "  " * depth
    for name in type(values).model_fields:
        value, dotted = getattr(values, name), f"{prefix}{name}"
        parts = {"": value} if isinstance(value, Settings) else {}
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], Settings):
            parts = {f".{place}": item for place, item in enumerate(value)}
        for place, item in parts.items():
            yield f"{space}{name}{place}"
            yield from _setting_lines(item, f"{dotted}{place}.", origins, depth + 1)
        if not parts:
            yield f"{space}{name}: {_shown(value)}  ({_origin(dotted, origins)})"


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return str(value)


def _origin(dotted: str, origins: dict[str, str]) -> str:
    below = (where for name, where in origins.items() if name.startswith(f"{dotted}."))
    return origins.get(dotted) or next(below, "default")
