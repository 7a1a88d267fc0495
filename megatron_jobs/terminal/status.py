"""The state of a run: a table whose first column is the tree of the plan; live, or once."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from megatron_jobs.errors import MegatronJobsError, UserError
from megatron_jobs.jobs.arrays import read_list
from megatron_jobs.jobs.queue import SlurmState, slurm_states
from megatron_jobs.jobs.status import SILENT, Record, all_costs, plain_record, plan_status
from megatron_jobs.jobs.tasks import in_words
from megatron_jobs.jobs.tree import Branch, plan_tree
from megatron_jobs.jobs.words import (
    say_energy,
    say_hours,
    say_money,
    say_name,
    say_numbers,
    say_progress,
    say_seconds,
    say_when,
)
from megatron_jobs.terminal.signs import spare_signs

STYLES = {
    "done": "green",
    "running": "bold cyan",
    "failed": "bold red",
    "cancelled": "red",
    "stopped": "yellow",
    "interrupted": "yellow",
    "unknown": "magenta",
}
PLAIN_WIDTH = 200
"""Columns where the output is no terminal, which would know its own."""
PLAIN_GUIDES = {"│": "|", "├": "|", "└": "`", "─": "-"}
COSTS = ("time", "GPU-hours", "energy", "money")


def show_status(run: Path, records: Sequence[Record]) -> None:
    """Print one line a job: state, Slurm id, progress or numbers, reason, costs; and the totals."""
    console = open_console()
    console.print(say_name(str(run)), soft_wrap=True)
    console.print(status_table(records, console.encoding))


def print_status_json(run: Path, records: Sequence[Record]) -> None:
    """Print all that is known as one JSON object: run, jobs, costs."""
    whole = {"run": str(run), "jobs": [plain_record(record) for record in records]}
    print(json.dumps(whole | {"costs": all_costs(records).as_record()}, indent=2))


def watch_status(run: Path, *, every: float = 2, ask_every: float = 15) -> None:
    """Show the state as it changes until no job waits or runs.

    Args:
        every: seconds between two looks at the run's files.
        ask_every: seconds between two questions to Slurm, which serves others as well.
    """
    console, ask = open_console(), Seldom(ask_every)
    if not console.is_terminal:
        _watch_plainly(console, run, ask, every)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            records = plan_status(run, ask)
            live.update(status_table(records, console.encoding), refresh=True)
            if not any(map(is_alive, records)):
                return
            time.sleep(every)


def _watch_plainly(console: Console, run: Path, ask: "Seldom", every: float) -> None:
    """A line for each job whose state or reason has changed."""
    before: dict[str, tuple[str, str]] = {}
    while True:
        records = plan_status(run, ask)
        for record in records:
            now = (record["state"], record["reason"])
            if before.get(record["job"]) != now:
                before[record["job"]] = now
                words = f"{say_name(record['job'])}: {now[0]}  {_what(record)}".rstrip()
                console.print(f"{time.strftime('%H:%M:%S')} {words}", soft_wrap=True)
        if not any(map(is_alive, records)):
            return
        time.sleep(every)


def is_alive(record: Record) -> bool:
    """Whether something may still become of a job by itself, or Slurm may yet tell of it."""
    waits = record["state"] == "waiting" and bool(record["slurm_id"])
    silent = record["state"] == "unknown" and record["reason"].startswith(SILENT)
    return waits or silent or bool(record["state"] == "running")


class Seldom:
    """Asks Slurm every so many seconds, and in between says what it said last."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.asked = float("-inf")
        self.ids: list[str] = []
        self.states: Mapping[str, SlurmState] = {}
        self.silence: MegatronJobsError | None = None

    def __call__(self, ids: Sequence[str]) -> Mapping[str, SlurmState]:
        """The states of jobs; those of the last time too when Slurm does not answer.

        Raises: UserError without a Slurm, MegatronJobsError when it has not told of these jobs yet.
        """
        same = self.ids == list(ids)
        if time.monotonic() - self.asked >= self.every or not same:
            self._ask(ids, before=self.states if same else {})
        if self.silence is not None and not self.states:
            raise self.silence
        return self.states

    def _ask(self, ids: Sequence[str], before: Mapping[str, SlurmState]) -> None:
        self.ids, self.states, self.silence = list(ids), before, None
        try:
            self.states = slurm_states(ids)
        except UserError:
            raise
        except MegatronJobsError as error:
            self.silence = error
        self.asked = time.monotonic()  # it may take half a minute to find that it does not answer


def open_console() -> Console:
    """Where tables go; wide where nobody has said how wide it is."""
    spare_signs()
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    return console


def guides_for(encoding: str) -> dict[int, str]:
    """What stands for the lines of the tree where an encoding has none; for `str.translate`."""
    try:
        "".join(PLAIN_GUIDES).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return str.maketrans(PLAIN_GUIDES)
    return {}


def status_table(records: Sequence[Record], encoding: str = "utf-8") -> Table:
    """All jobs, and the totals in the last line, in signs that an encoding has."""
    costs = [_cost_cells(record["costs"]) for record in records]
    totals = _cost_cells(all_costs(records))
    used = [place for place in range(len(COSTS)) if any(row[place] for row in costs)]
    table = Table(box=None, pad_edge=False, show_footer=len(records) > 1)
    total = f"{len(records)} jobs"
    submitted = any(record["slurm_id"] for record in records)
    table.add_column("job", no_wrap=True, footer=total)
    table.add_column("state", footer=_counts(records))
    if submitted:
        table.add_column("slurm", no_wrap=True)
    for place in used:
        table.add_column(COSTS[place], justify="right", no_wrap=True, footer=totals[place])
    table.add_column("", overflow="fold")
    by_name = {record["job"]: record for record in records}
    rows = dict(zip(by_name, costs, strict=True))
    guides = guides_for(encoding)
    for branch in plan_tree({name: record["after"] for name, record in by_name.items()}):
        record = by_name[branch.job]
        guide = branch.guide.translate(guides)
        cells = [Text(f"{guide}{say_name(branch.job)}"), _state(record)]
        cells += [Text(record["slurm_id"])] if submitted else []
        cells += [Text(rows[branch.job][place]) for place in used]
        table.add_row(*cells, Text(_words(record, branch)))
    return table


def _state(record: Record) -> Text:
    return Text(record["state"], style=STYLES.get(record["state"], ""))


def _words(record: Record, branch: Branch) -> str:
    """What is worth saying of a job, and what the tree cannot show."""
    others = [say_name(name) for name in branch.others]
    also = f"(also after {', '.join(others)})" if others and record["state"] == "waiting" else ""
    return f"{_what(record)} {also}".strip()


def _what(record: Record) -> str:
    """Progress or numbers, the reason for the state, when it is going to start, the verdict."""
    progress, verdict = record["progress"], record["verdict"]
    what = say_progress(progress) if progress else say_numbers(record["numbers"] or {})
    tasks = in_words({state: read_list(text) for state, text in record["tasks"].items()})
    parts = [what, tasks, record["reason"] or ""]
    if record["restarts"] and record["state"] != "running":
        parts.append(f"restarts {record['restarts']}")
    if record["expected"] is not None:
        parts.append(f"starts about {say_when(record['expected'])}")
    if record["state"] == "failed" and verdict:
        parts.append(f"-> {verdict.get('decision', '')}: {verdict.get('why', '')}")
        parts.append(record["postmortem"])
    return "  ".join(part for part in parts if part)


def _cost_cells(costs: Any) -> list[str]:
    return [
        say_seconds(costs.hours * 3600) if costs.hours else "",
        say_hours(costs.gpu_hours),
        say_energy(costs.joules, partly=costs.partly),
        say_money(costs.money),
    ]


def _counts(records: Sequence[Record]) -> str:
    states = [record["state"] for record in records]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
