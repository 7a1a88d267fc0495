"""What a report tells of one job: its starts with how each ended, and what was noted on the way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_jobs.jobs.events import Event, read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.starts import Start
from megatron_jobs.jobs.status import Record

ENDINGS = {
    "COMPLETED": "done",
    "FAILED": "failed",
    "OUT_OF_MEMORY": "failed",
    "TIMEOUT": "failed",
    "DEADLINE": "failed",
    "BOOT_FAIL": "failed",
    "NODE_FAIL": "lost",
    "PREEMPTED": "preempted",
    "REQUEUED": "requeued",
    "CANCELLED": "cancelled",
}
"""Slurm's word for how a start ended -> the report's."""
LAST = {"end": "done", "failed": "failed", "stopped": "stopped", "lost": "lost", "stop": "stopped"}
"""The event that ended a start -> the report's word, where Slurm has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """One start of a job."""

    number: int
    """From 1."""
    start: Start
    ended: float
    """When it ended, or the time of the report."""
    ending: str
    """done, failed, lost, preempted, requeued, stopped, cancelled or running."""
    events: tuple[Event, ...] = ()
    """Those that were noted in it, and after it until the next."""

    @property
    def preflight(self) -> Event | None:
        """The verdict on its nodes."""
        return next((event for event in self.events if event["event"] == "preflight"), None)

    def why(self) -> str:
        """What was noted of its end, in one line; the reason of a failure once."""
        failed = any(event["event"] == "failed" for event in self.events)
        told = [e for e in self.events if not (failed and e["event"] == "stop")]
        return "; ".join(filter(None, map(describe_event, told)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One job of the run."""

    record: Record
    folder: JobFolder
    chapters: list[Chapter] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.record["job"])

    @property
    def state(self) -> str:
        return str(self.record["state"])

    @property
    def restarts(self) -> int:
        """Starts that were not the first of the job, or of the task of an array."""
        ids = [chapter.start.slurm_id for chapter in self.chapters]
        firsts = {slurm_id if "_" in slurm_id else "" for slurm_id in ids}
        return len(ids) - len(firsts)


def read_story(run: Path, record: Record, now: float) -> Story:
    """What is known of a job.

    Args:
        now: until when a start that goes on is told.
    """
    folder = JobFolder(run / record["job"])
    starts: list[Start] = record["starts"]
    events = read_events(folder)
    chapters = []
    for number, start in enumerate(starts, 1):
        following = starts[number].began if number < len(starts) else float("inf")
        mine = tuple(e for e in events if start.began - 1 <= e["time"] < following - 1)
        last = number == len(starts)
        ending = _ending(start, mine, record["state"] if last else "")
        ended = now if start.ended is None else start.ended
        chapter = Chapter(number=number, start=start, ended=ended, ending=ending, events=mine)
        chapters.append(chapter)
    return Story(record=record, folder=folder, chapters=chapters)


def _ending(start: Start, events: Sequence[Event], state: str) -> str:
    """How a start ended; `state` is the job's if it is its last."""
    if start.state == "FAILED" and state == "stopped":  # by a status that Slurm knows nothing of
        return state
    if start.state in ENDINGS and not (start.state == "COMPLETED" and state not in ("", "done")):
        return ENDINGS[start.state]
    if state in ("done", "running", "failed", "stopped", "cancelled"):
        return state
    found = [LAST[event["event"]] for event in events if event["event"] in LAST]
    return found[-1] if found else ("lost" if start.ended is not None else "running")


def describe_event(event: Event) -> str:
    """An event in plain words; nothing for those that only say that all goes well."""
    plain = TELLERS.get(event["event"])
    return plain(event) if plain else ""


def _of_preflight(event: Event) -> str:
    bad = event.get("bad") or {}
    return "unfit: " + ", ".join(f"{node} ({cause})" for node, cause in bad.items()) if bad else ""


def _of_stall(event: Event) -> str:
    where = f", in {event['where']}" if event.get("where") else ""
    rank = f"rank {event.get('rank')} on {event.get('node')}"
    return f"stalled at step {event.get('step')}: {rank}{where}"


def _of_failure(event: Event) -> str:
    rank = event.get("rank")
    who = f"rank {rank}" if rank is not None else ""
    node = f"on {event['node']}" if event.get("node") else ""
    place = " ".join(filter(None, [who, node]))
    cause = f"{place}: {event.get('cause')}" if place else str(event.get("cause"))
    return f"{cause}; {event.get('decision')}: {event.get('why')}"


def _of_again(event: Event) -> str:
    out = names_of(event.get("exclude"))
    how = f"as Slurm job {event['successor']}" if event.get("successor") else event.get("how", "")
    return f"goes on ({how})" + (f", without {out}" if out else "")


def names_of(value: Any) -> str:
    """Names in a row, whether they come as a list or as a text."""
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value or "")


TELLERS: dict[str, Callable[[Event], str]] = {
    "preflight": _of_preflight,
    "stall": _of_stall,
    "drain": lambda event: f"being drained: {names_of(event.get('nodes'))}",
    "lost": lambda event: str(event.get("why", "")),
    "stopped": lambda event: f"stopped: {event.get('reason', '')}".rstrip(": "),
    "failed": _of_failure,
    "again": _of_again,
    "stop": lambda event: f"not gone on with: {event.get('why', '')}",
}
