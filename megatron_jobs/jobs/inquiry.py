"""Asking a running job what its ranks are doing: on this machine directly, else by its watches."""

import os
import time
from pathlib import Path
from typing import Any

from megatron_jobs.config.tree import no_such
from megatron_jobs.errors import UserError
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.stacks import RankState, answers, ask, ask_again, collect, get, scratch_of
from megatron_jobs.jobs.status import latest_job, read_jobs
from megatron_jobs.runtime.heartbeat import starts_on_node

POLL_SECONDS = 5
"""Between two looks of a watch for a request, at most."""
ANSWER_SECONDS = 15
"""How long answers are waited for, beside that."""
FRESH_SECONDS = 120
"""A node whose watch has not written for so long does not run the job any more."""


def job_of(run: Path, job: str = "") -> JobFolder:
    """The job of a run that is named, or the one whose logs were written to last.

    Raises: UserError when there is none.
    """
    name = job or latest_job(run)
    if name not in (known := read_jobs(run)):
        raise UserError(no_such("job", name, sorted(known)))
    return JobFolder(run / name)


def rank_states(folder: JobFolder) -> list[RankState]:
    """The state and stacks of every rank of a job that runs, here or on a cluster.

    Raises: UserError when none gives a sign of life.
    """
    host = os.uname().nodename
    places = starts_on_node(folder.path, host=host, scratch=scratch_of(folder))
    here = [state for place in places for state in collect(place, host) if state.state != "gone"]
    if here:
        return here
    told = [found for found in all_summaries(folder) if time.time() - found["time"] < FRESH_SECONDS]
    if not told:
        raise UserError(f"{folder.path.name}: no rank gives signs of life; does it run?")
    start = max(told, key=lambda found: float(found["time"]))["start"]
    return gather(folder, start, ask(folder, start))


def gather(folder: JobFolder, start: str, place: Path) -> list[RankState]:
    """The answers of all nodes to `ask`; ranks of one that twice does not answer are silent."""
    expected = {found["name"]: found for found in summaries(folder, start)}
    missing = {name: int(found["node"]) for name, found in expected.items()}
    ranks = _answers_in_time(place, missing)
    if missing:
        ask_again(folder, place)
        ranks += _answers_in_time(place, missing)
    for name in missing:
        ranks += [_silent(name, beat) for beat in expected[name]["ranks"]]
    return sorted(ranks, key=lambda rank: rank.rank)


def _answers_in_time(place: Path, missing: dict[str, int]) -> list[RankState]:
    """What nodes answer; they are then no longer among those that are missing."""
    ranks: list[RankState] = []
    end = time.monotonic() + POLL_SECONDS + ANSWER_SECONDS
    while missing:
        for name, found in answers(place, missing).items():
            ranks += found
            del missing[name]
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    return ranks


def _silent(name: str, beat: dict[str, Any]) -> RankState:
    """A rank as its node's watch last told of it."""
    known = {key: beat[key] for key in ("rank", "step", "what", "time", "watched")}
    return RankState(node=name, state="silent", **known)


def summaries(folder: JobFolder, start: str) -> list[dict[str, Any]]:
    """What the watch of each node of one start last told: {start, node, name, time, ranks}."""
    return [found for found in all_summaries(folder) if found["start"] == start]


def all_summaries(folder: JobFolder) -> list[dict[str, Any]]:
    """The same of all starts: a node that had the job earlier has left its file."""
    found = [get(path) for path in sorted(folder.watch.glob("[0-9]*/*.json"))]
    return [summary for summary in found if summary]
