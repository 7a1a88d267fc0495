"""The settings of a job that are not the default."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from megatron_jobs.config.settings import Settings
from megatron_jobs.errors import UserError
from megatron_jobs.jobs.folder import JobFolder, read_job
from megatron_jobs.jobs.plan import RESERVED, load_job

Setting = tuple[str, str]
"""Dotted name and value, as they are shown."""


def own_settings(folder: JobFolder) -> list[Setting]:
    """What differs from the stage's defaults; everything where the stage is not to be had."""
    run = folder.path.parent
    try:
        job = load_job(folder)
    except UserError:  # written by another version, or for a stage of somebody's own
        values = {k: v for k, v in read_job(folder).items() if k not in RESERVED}
        return [(name, shown(value, run)) for name, value in _flat(values, "")]
    found = [*_changed(job.config, None, "")]
    found += [(f"resources.{n}", v) for n, v in _changed(job.resources, job.stage.RESOURCES, "")]
    return [(name, shown(value, run)) for name, value in found]


def _changed(values: Settings, standard: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of what is not in `standard`, or the default where there is none."""
    for name, field in type(values).model_fields.items():
        value, usual = getattr(values, name), getattr(standard, name, None)
        if standard is None and not field.is_required():
            usual = field.get_default(call_default_factory=True)
        if isinstance(value, Settings):
            same = usual if isinstance(usual, type(value)) else None
            yield from _changed(value, same, f"{prefix}{name}.")
        elif value != usual or (standard is None and field.is_required()):
            yield f"{prefix}{name}", value


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def shown(value: Any, run: Path) -> str:
    """A value as a plan writes it; what another job of the run made as `@job/output`."""
    if isinstance(value, Settings):
        inner = (f"{n}: {shown(v, run)}" for n, v in _changed(value, None, ""))
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(shown(item, run) for item in value) + "]"
    if isinstance(value, Path) and value.is_relative_to(run):
        return f"@{value.relative_to(run)}"
    return str(value)
