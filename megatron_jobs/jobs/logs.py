"""The logs of a job, and which of them tells why it failed."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_jobs.errors import EXIT_STOPPED, UserError
from megatron_jobs.jobs.events import Event, read_events
from megatron_jobs.jobs.folder import TASKS, JobFolder

BLAMED = re.compile(r"srun: error: (\S+): tasks? (\d+)[\d,-]*: (.+)")
RANK = re.compile(r"rank-(\d+)\.(log|error)")
MANY_RANKS = 16
"""Of more than these only the first is followed."""


@dataclass(frozen=True, slots=True)
class Guilty:
    """Where to look for why a job failed."""

    rank: int | None
    """None: no rank is known, the log is that of the batch script or the launcher."""
    node: str
    words: str
    """What was said last, or what is known of how it ended."""
    log: Path | None


def job_logs(folder: JobFolder, rank: int | None = None) -> list[Path]:
    """The log of one rank, or all logs of a job: that of the script or launcher, then each rank's.

    Raises: UserError when there is no such log yet.
    """
    job = folder.name
    ranks = {_rank_of(path): path for path in folder.rank_logs()}
    if rank is None:
        found = [*_script_logs(folder), *ranks.values()]
        if not found:
            raise UserError(f"{job}: no log yet; it has not started")
        return found
    if rank not in ranks:
        there = f"there are {len(ranks)}, counted from 0" if ranks else "it has not started"
        raise UserError(f"{job}: no log of rank {rank}; {there}")
    return [ranks[rank]]


def find_guilty(folder: JobFolder) -> Guilty:
    """The rank that failed first, as far as it is known.

    The verdict of the triage comes first. A rank that raised left its words in a file; of one that
    was killed srun says so in the batch script's log.
    """
    logs = {_rank_of(path): path for path in folder.rank_logs()}
    verdict = last_failure(folder)
    if verdict is not None:
        rank, words = verdict.get("rank"), str(verdict.get("cause", ""))
        log = next(iter(_script_logs(folder)), None) if rank is None else logs.get(rank)
        return Guilty(rank, str(verdict.get("node") or ""), words, log)
    errors = sorted(folder.rank_errors(), key=lambda path: path.stat().st_mtime_ns)
    if errors:
        rank, words = _rank_of(errors[0]), _last_line(errors[0])
        return Guilty(rank, "", words, logs.get(rank, folder.log(rank)))
    return _told_by_srun(folder, logs)


def last_failure(folder: JobFolder) -> Event | None:
    """The event `failed` of the last start, if it ended so."""
    failure: dict[str, Any] | None = None
    for event in read_events(folder):
        if event["event"] in ("start", "end"):
            failure = None
        elif event["event"] == "failed":
            failure = event
    return failure


def last_stop(folder: JobFolder) -> Event | None:
    """The event `stop` with which a job ended that has saved and that nobody goes on with."""
    last = next(reversed(read_events(folder)), None)
    if last is None or (last["event"], last.get("status")) != ("stop", EXIT_STOPPED):
        return None
    return last


def blame(folder: JobFolder) -> str:
    """One line: the rank that failed first, its last words, its log; as far as known."""
    guilty = find_guilty(folder)
    if guilty.log is None and guilty.rank is None:
        return guilty.words
    see = f"; see {guilty.log}" if guilty.log else ""
    if guilty.rank is None:
        return f"{guilty.words}{see}"
    where = f" on {guilty.node}" if guilty.node else ""
    return f"rank {guilty.rank}{where}: {guilty.words}{see}"


def newest_log(folder: JobFolder) -> int:
    """When a log of a job, or of one of its tasks, was written to last, in ns; 0 without logs."""
    tasks = [JobFolder(logs.parent) for logs in folder.path.glob(f"{TASKS}/*/*/logs")]
    logs = [log for one in (folder, *tasks) for log in (*_script_logs(one), *one.rank_logs())]
    return max((log.stat().st_mtime_ns for log in logs), default=0)


def few_logs(logs: list[Path]) -> list[Path]:
    """Of more ranks than a person can follow the first, and what is not a rank's."""
    ranks = [path for path in logs if RANK.fullmatch(path.name)]
    left_out = set(ranks[1:] if len(ranks) > MANY_RANKS else ())
    return [path for path in logs if path not in left_out]


def last_part(path: Path, lines: int = 40, most: int = 64_000) -> str:
    """The last lines of a log, however long it is, and at most so many bytes of it."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - most))
        text = file.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:])


def _told_by_srun(folder: JobFolder, logs: dict[int, Path]) -> Guilty:
    scripts = _script_logs(folder)
    if not scripts:
        return Guilty(None, "", "left no log", None)
    lines = last_part(scripts[0], lines=2000, most=1_000_000).splitlines()
    if not lines:
        return Guilty(None, "", "left no log", None)
    for found in map(BLAMED.search, _last_start(lines)):
        if found:
            node, task, how = found.groups()
            return Guilty(int(task), node, how, logs.get(int(task), folder.log(int(task))))
    return Guilty(None, "", lines[-1], scripts[0])


def _script_logs(folder: JobFolder) -> list[Path]:
    """The log of the batch script, that of the local launcher: those that there are."""
    return [p for p in (folder.logs / "batch.log", folder.logs / "launch.log") if p.exists()]


def _last_start(lines: list[str]) -> list[str]:
    """The part of a batch log that its last start wrote."""
    starts = [place for place, line in enumerate(lines) if " Slurm job " in line]
    return lines[starts[-1] :] if starts else lines


def _last_line(path: Path) -> str:
    return last_part(path, lines=1)


def _rank_of(path: Path) -> int:
    found = RANK.fullmatch(path.name)
    return int(found.group(1)) if found else -1
