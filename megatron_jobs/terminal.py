"""What people see in a terminal: a run as it goes, a plan's settings, a run's state, logs."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from megatron_jobs.config.settings import Settings
from megatron_jobs.errors import UserError
from megatron_jobs.jobs.plan import Job, Plan


class LiveRun:
    """One line a job, the running one alive; plain lines where the output is no terminal."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.live = Live(console=self.console, refresh_per_second=8, transient=True)
        self.last_plain = 0.0
        self.started: dict[str, float] = {}

    def __enter__(self) -> Self:
        names = ", ".join(self.plan.jobs)
        self.console.print(f"{self.plan.shown} -> {self.plan.run}\njobs: {names}", soft_wrap=True)
        self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.live.stop()
        if error is None:
            self._say_where()

    def _say_where(self) -> None:
        """Print what stages want shown, and where to look for the rest."""
        for job in self.plan.jobs.values():
            shown = getattr(job.stage, "SHOW", "")
            if shown:
                text = (job.folder.path / shown).read_text(encoding="utf-8")
                self.console.print(f"\n{text}", soft_wrap=True)
        run = self.plan.run
        places = {"receipts": "*/receipt.json", "plots": "*/*.svg", "tensorboard": "*/tensorboard"}
        for what, pattern in places.items():
            for path in sorted(run.glob(pattern)):
                self.console.print(f"{what:<12} {path}", soft_wrap=True)

    def watch(self, job: Job, state: str, record: dict[str, Any] | None) -> None:
        """Show what became of a job; see `jobs.local.Watch`."""
        if state == "running":
            self.started.setdefault(job.name, time.monotonic())
            self._running(job, record)
            return
        word = "done before" if state == "skipped" else "done"
        numbers = _numbers((record or {}).get("numbers", {}))
        seconds = (record or {}).get("seconds", 0.0)
        self.live.update(Text(""))
        self.console.print(f"{job.name:<10} {word} in {seconds:.1f} s  {numbers}", soft_wrap=True)

    def _running(self, job: Job, record: dict[str, Any] | None) -> None:
        elapsed = time.monotonic() - self.started[job.name]
        line = f"{job.name:<10} {_progress(record) if record else 'starting'}  {elapsed:.0f} s"
        if self.console.is_terminal:
            self.live.update(Text(line, overflow="ellipsis", no_wrap=True))
        elif time.monotonic() - self.last_plain > 10:
            self.last_plain = time.monotonic()
            self.console.print(line, soft_wrap=True)


def _progress(record: dict[str, Any]) -> str:
    done, total = record["done"], record["total"]
    share = done / total if total else 1.0
    bar = "=" * int(20 * share)
    left = record["seconds_left"]
    rest = f"{_clock(left)} left" if left is not None else ""
    count = f"{done}/{total} {record['unit']}"
    return f"[{bar:<20}] {count}  {_numbers(record['numbers'])}  {rest}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _numbers(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {_number(value)}" for name, value in numbers.items())


def _number(value: float) -> str:
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


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


def show_status(run: Path, records: list[dict[str, Any]]) -> None:
    """Print one line a job: state, Slurm id, progress or numbers, reason."""
    table = Table(box=None, pad_edge=False)
    for column in ("job", "state", "slurm", "time", "what"):
        table.add_column(column, no_wrap=column != "what")
    for record in records:
        progress = record.get("progress")
        what = _progress(progress) if progress else _numbers(record.get("numbers") or {})
        reason = record.get("reason") or ""
        seconds = record.get("seconds")
        cells = [record["job"], record["state"], record.get("slurm_id") or ""]
        cells += [_clock(seconds) if seconds is not None else "", f"{what} {reason}".strip()]
        table.add_row(*[Text(cell) for cell in cells])
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(f"{run}", soft_wrap=True)
    console.print(table)


def print_logs(paths: list[Path], places: dict[Path, int]) -> None:
    """Print each file from its place on, headed by its name, and move the places to their ends."""
    for path in paths:
        places[path] = _print_from(path, places.get(path, 0), headed=len(paths) > 1)


def follow_logs(
    files: Callable[[], list[Path]], goes_on: Callable[[], bool], *, ask_every: float = 10
) -> None:
    """Print logs as they grow, until the job has ended.

    Args:
        files: the files there are now; raises UserError as long as there are none.
        goes_on: whether more may come; asked every `ask_every` seconds, since it may ask Slurm.
    """
    places: dict[Path, int] = {}
    asked = -ask_every
    while True:
        ended = time.monotonic() - asked >= ask_every and not goes_on()
        asked = time.monotonic() if time.monotonic() - asked >= ask_every else asked
        try:
            print_logs(files(), places)  # after asking: all that was written until then
        except UserError:
            if ended:
                raise
        if ended:
            return
        time.sleep(0.5)


def _print_from(path: Path, place: int, *, headed: bool) -> int:
    with path.open("rb") as file:
        file.seek(place)
        added = file.read()
    if added:
        if headed:
            print(f"==> {path.name} <==")
        sys.stdout.write(added.decode("utf-8", errors="replace"))
        sys.stdout.flush()
    return place + len(added)
