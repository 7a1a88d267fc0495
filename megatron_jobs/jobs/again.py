"""Whether a job goes on: what it has reached, the guard against restarts in vain, its successors.

The history is in events.jsonl. Only what came after the last `submit` counts: a person who submits
a job again gives it a fresh chance.
"""

import time
from collections.abc import Iterable

from megatron_jobs.jobs.cluster import Cluster
from megatron_jobs.jobs.events import Event, note, read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.plan import Job
from megatron_jobs.jobs.strikes import DAY, strikes_now
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.progress import read_progress
from megatron_jobs.runtime.rank import slurm_job_id, slurm_restart

ENDS = frozenset({"end", "stopped", "failed", "stop", "again", "lost"})
"""Events that say how a start ended."""


def history(folder: JobFolder) -> list[Event]:
    """The job's, or task's, events since the job was submitted last."""
    events = read_events(folder)
    if folder.task is not None:
        submits = [e for e in read_events(JobFolder(folder.whole)) if e["event"] == "submit"]
        return [e for e in events if not submits or e["time"] > submits[-1]["time"]]
    last = max((i for i, event in enumerate(events) if event["event"] == "submit"), default=-1)
    return events[last + 1 :]


def headway(folder: JobFolder) -> int:
    """The most that the job has ever reported as done: steps, documents, bytes."""
    done = (read_progress(folder.path) or {}).get("done", 0)
    return max(int(done), *_reached(folder), 0)


def why_not(folder: JobFolder, cluster: Cluster) -> str:
    """Why the job is not to be started once more, or nothing."""
    reached = _reached(folder)
    if len(reached) > cluster.max_restarts:
        text = f"after {len(reached) - 1} restarts not put back in the queue (max_restarts)"
        return f"{text}: submit it again to go on"
    stuck = restarts_in_vain([*reached, headway(folder)])
    if stuck >= cluster.stuck_restarts:
        text = f"restarts in a row without headway: {stuck}, it is still at {reached[-1]}"
        return f"{text}; not put back in the queue: find the cause, then submit it again"
    return ""


def _reached(folder: JobFolder) -> list[int]:
    """Headway when each start began; of those that Slurm ended for reasons of its own, none."""
    reached: list[int] = []
    for event in history(folder):
        if event["event"] == "start":
            reached.append(int(event["reached"]))
        elif event["event"] == "lost" and event.get("blameless"):
            del reached[-1:]
    return reached


def restarts_in_vain(reached: list[int]) -> int:
    """How many of the last restarts made no headway.

    Args:
        reached: headway when each start began, and at last now.
    """
    count = 0
    for before, after in zip(reached[-2:0:-1], reached[:1:-1], strict=False):
        if after > before:
            break
        count += 1
    return count


def verdict_before(folder: JobFolder) -> str:
    """`stop STATUS` when an earlier job of a chain (`again: ahead`) came to that; or nothing."""
    last = _last_word(folder)
    if last is not None and last["event"] == "stop" and last["slurm_job_id"] != slurm_job_id():
        return f"stop {last['status']}"
    return ""


def ended_silently(folder: JobFolder) -> bool:
    """Whether the last start left no word of its end: Slurm ended it, or its node was lost."""
    last = _last_word(folder)
    return last is not None and last["event"] == "start"


def _last_word(folder: JobFolder) -> Event | None:
    """The last event that says of a start that it began, or how it ended."""
    return next((e for e in reversed(history(folder)) if e["event"] in ENDS | {"start"}), None)


def note_start(folder: JobFolder, *, reached: int, nodes: list[str]) -> None:
    """Note that the ranks are about to start."""
    fresh = len(read_json(folder.started)["starts"]) == 1  # earlier work was of other settings
    restarts = {
        "restart": sum(event["event"] == "start" for event in history(folder)),
        "slurm_restart": slurm_restart(),
    }
    note(folder, "start", **restarts, nodes=nodes, reached=0 if fresh else reached)


def superseded(folder: JobFolder) -> bool:
    """Whether another start has begun since this one did: Slurm had lost its node, and it lives."""
    starts = [
        (event["slurm_job_id"], event.get("slurm_restart", 0))
        for event in read_events(folder)
        if event["event"] == "start"
    ]
    mine = (slurm_job_id(), slurm_restart())
    return mine in starts and starts[-1] != mine


def excluded(folder: JobFolder, cluster: Cluster, nodes: Iterable[str]) -> list[str]:
    """What Slurm is to leave out beside the profile's, those noted last at the end: `nodes`.

    Before them the team's, and the job's own of the last `strike_days`.
    """
    now = time.time()
    since = {node: float(found["time"]) for node, found in strikes_now(cluster).items()}
    for event in history(folder):
        if event["time"] > now - cluster.strike_days * DAY:
            since |= dict.fromkeys(event.get("own", ()), event["time"])
    since |= dict.fromkeys(nodes, now)
    return sorted(since, key=lambda node: since[node])


def own_exclusions(cluster: Cluster, nodes: Iterable[str]) -> list[str]:
    """Those that are not on the team's list: that says for how long, or that one is forgotten."""
    listed = strikes_now(cluster)
    return [node for node in nodes if node not in listed]


def moved_on(job: Job) -> list[str]:
    """Slurm ids that a job must wait for: of those before it that go on under a new id.

    Slurm took the end of the old id for the end of that job. An id is named once: whoever has
    waited for it, in vain, is not to wait again.
    """
    waited = {slurm_id for event in history(job.folder) for slurm_id in event.get("behind", ())}
    found = []
    needed = [JobFolder(job.run / name) for name in job.after]
    needed += [task.folder for task in job.tasks()]
    for before in needed:
        if before.receipt.exists():
            continue
        newest = [event["successor"] for event in history(before) if event.get("successor")][-1:]
        if not waited.issuperset(newest):
            found += newest
    return found
