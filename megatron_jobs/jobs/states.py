"""The state of one job: what its files and Slurm say of it, put together."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.errors import EXIT_DONE, EXIT_STOPPED
from megatron_jobs.jobs.events import Event, read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.lock import is_held
from megatron_jobs.jobs.logs import blame, last_stop
from megatron_jobs.jobs.queue import COMING_BACK, HELD, STANDING_STILL, SlurmState
from megatron_jobs.jobs.reasons import plain_reason
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.progress import read_progress

Facts = dict[str, Any]
"""A part of a `jobs.status.Record`."""


def judge_job(folder: JobFolder, slurm_id: str, states: Mapping[str, SlurmState]) -> Facts:
    """Its state, why, and what Slurm says of it.

    Raises: DataError when a file of the job cannot be read.
    """
    slurm = states.get(slurm_id)
    receipt = read_receipt(folder)
    record: Facts = {"slurm_id": slurm_id, "reason": ""}
    record |= {"slurm_state": slurm.state if slurm else "", "restarts": 0, "seconds": None}
    if slurm is not None:
        record |= {"restarts": slurm.restarts, "seconds": slurm.seconds}
    if slurm is not None and slurm.living and not _outlived(folder, slurm):
        return record | _living(folder, slurm)
    known = slurm is None or _is_of(receipt, slurm_id, slurm) or _ran_here_since(folder)
    if receipt is not None and known and not is_held(folder):
        numbers, seconds = receipt["numbers"], receipt["seconds"]
        return record | {"state": "done", "numbers": numbers, "seconds": seconds}
    if not slurm_id or _ran_here_since(folder):
        return record | {"slurm_id": "", "seconds": None} | _local(folder)
    if slurm is None:
        return record | {"state": "unknown", "reason": "no Slurm here that knows this job"}
    return record | _ended(folder, slurm)


def _outlived(folder: JobFolder, slurm: SlurmState) -> bool:
    """Whether a job still waits that was submitted ahead of need: the receipt came after it."""
    if not is_waiting(slurm) or not folder.receipt.exists():
        return False
    return folder.receipt.stat().st_mtime > folder.slurm.stat().st_mtime


def is_waiting(slurm: SlurmState) -> bool:
    """Whether a living job has no nodes yet, or none any more."""
    return slurm.state == "PENDING" or slurm.state in COMING_BACK


def _is_of(receipt: Mapping[str, Any] | None, slurm_id: str, slurm: SlurmState) -> bool:
    """Whether a receipt is the newest Slurm job's work, or was found by it to hold."""
    ids = receipt["slurm_job_ids"] if receipt is not None else []
    return slurm_id in ids or slurm.state in ("COMPLETED", "PENDING")


def _living(folder: JobFolder, slurm: SlurmState) -> Facts:
    if is_waiting(slurm):
        told = slurm.reason not in ("", "None") or slurm.state not in HELD
        reason = slurm.reason if told else slurm.state
        facts = {"reason": reason, "seconds": None, "expected": slurm.expected}
        return {"state": "waiting"} | facts
    still = plain_reason(slurm.state) if slurm.state in STANDING_STILL else ""
    again = f"restart {slurm.restarts}" if slurm.restarts else ""
    reason = still or _stalled(read_events(folder)) or again
    return {"state": "running", "progress": read_progress(folder.path), "reason": reason}


def _stalled(events: list[Event]) -> str:
    """What is said of a job whose ranks give no sign of life, if it was seen in this start."""
    last = next((e for e in reversed(events) if e["event"] in ("start", "stall")), None)
    if last is None or last["event"] == "start":
        return ""
    rank, node, where = (last.get(name) for name in ("rank", "node", "where"))
    place = f" on {node}" if node else ""
    return f"stalled: rank {rank}{place} is behind" + (f", in {where}" if where else "")


def _ended(folder: JobFolder, slurm: SlurmState) -> Facts:
    """A Slurm job that ended without a receipt."""
    if slurm.state == "CANCELLED":
        return {"state": "cancelled"}
    if slurm.state == "COMPLETED":
        return {"state": "failed", "reason": f"no receipt; see {folder.logs / 'batch.log'}"}
    stop = last_stop(folder)
    if stop is not None:
        return {"state": "stopped", "reason": stop["why"]}
    how = "" if slurm.state == "FAILED" else f"{slurm.state.lower().replace('_', ' ')}: "
    return {"state": "failed", "reason": f"{how}{blame(folder)}"}


def _local(folder: JobFolder) -> Facts:
    """A job that ran, or runs, on this machine without Slurm."""
    if is_held(folder):
        return {"state": "running", "progress": read_progress(folder.path)}
    if not folder.started.exists():
        return {"state": "waiting"}
    if not folder.outcome.exists():
        return {"state": "interrupted", "reason": "ended without a word; run it again to go on"}
    outcome = read_json(folder.outcome)
    if outcome["status"] == EXIT_STOPPED:
        return {"state": "stopped", "reason": "saved; run it again to go on"}
    if outcome["status"] == EXIT_DONE:
        return {"state": "interrupted", "reason": "before its receipt; run it again"}
    if outcome["signal"]:
        return {"state": "failed", "reason": f"rank {outcome['guilty']}: {outcome['signal']}"}
    return {"state": "failed", "reason": blame(folder)}


def _ran_here_since(folder: JobFolder) -> bool:
    """Whether it was started on this machine after it was submitted last."""
    launched = folder.logs / "launch.log"
    return launched.exists() and launched.stat().st_mtime > folder.slurm.stat().st_mtime
