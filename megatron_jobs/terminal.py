"""What people see in a terminal: a run as it goes, a plan's settings, a run's state, logs."""

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from megatron_jobs.config.settings import Settings
from megatron_jobs.jobs.plan import Job, Plan


class LiveRun:
    """One line a job, the running one alive; plain lines where the output is no terminal."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.console = Console(highlight=False)
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
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{plan.shown}: {len(plan.jobs)} jobs in {plan.run}")
    for job in plan.jobs.values():
        console.print(_job_tree(job))


def _job_tree(job: Job) -> Tree:
    after = f" after {', '.join(job.after)}" if job.after else ""
    tree = Tree(Text(f"{job.name} ({job.stage_name}){after}"))
    asked = job.resources
    size = f"{asked.nodes} nodes x {asked.ranks} ranks x {asked.cpus} cpus, {asked.gpus} gpus"
    tree.add(Text(f"resources: {size}, {asked.hours:g} h"))
    for label, value in getattr(job.stage, "describe", _describe_nothing)(job.config, asked):
        tree.add(Text(f"{label}: {value}"))
    _add_settings(tree, job.config, "", job.origins)
    return tree


def _describe_nothing(config: Settings, resources: Settings) -> list[tuple[str, str]]:
    return []


def _add_settings(tree: Tree, values: Any, prefix: str, origins: dict[str, str]) -> None:
    pairs = [(name, getattr(values, name)) for name in type(values).model_fields]
    for name, value in pairs:
        dotted = f"{prefix}{name}"
        if isinstance(value, Settings):
            _add_settings(tree.add(Text(name)), value, f"{dotted}.", origins)
        elif isinstance(value, list) and value and isinstance(value[0], Settings):
            branch = tree.add(Text(name))
            for place, item in enumerate(value):
                _add_settings(branch.add(Text(str(place))), item, f"{dotted}.{place}.", origins)
        else:
            tree.add(Text(f"{name}: {_shown(value)}  ({_origin(dotted, origins)})"))


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
    console = Console(highlight=False)
    console.print(f"{run}", soft_wrap=True)
    console.print(table)


def print_logs(paths: list[Path], *, follow: bool, every: float = 0.5) -> None:
    """Print log files one after the other, each headed by its name; then what is added to them."""
    places = dict.fromkeys(paths, 0)
    while True:
        for path in paths:
            places[path] = _print_from(path, places[path], headed=len(paths) > 1)
        if not follow:
            return
        time.sleep(every)


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
