"""A run on this machine as it goes."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from megatron_jobs.jobs.plan import Job, Plan
from megatron_jobs.jobs.words import say_numbers, say_progress


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
        numbers = say_numbers((record or {}).get("numbers", {}))
        seconds = (record or {}).get("seconds", 0.0)
        self.live.update(Text(""))
        self.console.print(f"{job.name:<10} {word} in {seconds:.1f} s  {numbers}", soft_wrap=True)

    def _running(self, job: Job, record: dict[str, Any] | None) -> None:
        elapsed = time.monotonic() - self.started[job.name]
        line = f"{job.name:<10} {say_progress(record) if record else 'starting'}  {elapsed:.0f} s"
        if self.console.is_terminal:
            self.live.update(Text(line, overflow="ellipsis", no_wrap=True))
        elif time.monotonic() - self.last_plain > 10:
            self.last_plain = time.monotonic()
            self.console.print(line, soft_wrap=True)
