"""The strike list: nodes that failed, noted by all jobs of a team and left out of those to come.

A file of JSON lines, one a strike, that only grows: another line takes a node off.
"""

import contextlib
import datetime
import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from megatron_jobs.errors import MegatronJobsError, UserError
from megatron_jobs.jobs.cluster import Cluster
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.queue import call_slurm
from megatron_jobs.jobs.user import user_name

DAY = 86400
MODE = 0o664
"""Whoever shares the group adds to it."""

Strike = dict[str, Any]
"""time (seconds since 1970), cluster, node, cause, job (its folder), user; or `forget`: true."""


def strike(cluster: Cluster, node: str, cause: str, folder: JobFolder) -> None:
    """Note that a node failed. A list that cannot be written to is named, and no error."""
    if not cluster.strikes:
        return
    try:
        _append(cluster, {"node": node, "cause": cause, "job": str(folder.path)})
    except OSError as error:
        print(f"{cluster.strikes}: {node} is not noted: {error.strerror}", file=sys.stderr)


def forget(cluster: Cluster, node: str) -> None:
    """Take a node off the list; UserError when it is not on it, or the list cannot be written."""
    known = struck(cluster)
    if node not in known:
        names = ", ".join(known) or "none"
        raise UserError(f"{node}: is not on the strike list of {cluster.name}; on it: {names}")
    try:
        _append(cluster, {"node": node, "forget": True})
    except OSError as error:
        raise UserError(f"{cluster.strikes}: cannot be written to: {error.strerror}") from error


def struck(cluster: Cluster) -> dict[str, str]:
    """The nodes that are left out of new jobs now, with the cause of each."""
    return {node: str(found["cause"]) for node, found in strikes_now(cluster).items()}


def nodes_to_leave_out(cluster: Cluster) -> dict[str, str]:
    """Those of `struck` that Slurm knows: it refuses to leave out a node that it does not have."""
    found = struck(cluster)
    if not found:
        return {}
    try:
        done = call_slurm(["sinfo", "--all", "--noheader", "--Node", "--format=%N"])
    except MegatronJobsError:  # a dry run where there is no Slurm, or where it is down
        return found
    known = set(done.stdout.split())
    return {node: cause for node, cause in found.items() if node in known}


def strikes_now(cluster: Cluster) -> dict[str, Strike]:
    """The last strike of each node that counts today; by node."""
    since = time.time() - cluster.strike_days * DAY
    found: dict[str, Strike] = {}
    for record in _read(cluster):
        if record["cluster"] != cluster.name or record["time"] < since:
            continue
        if record.get("forget"):
            found.pop(record["node"], None)
        else:
            found[record["node"]] = record
    return dict(sorted(found.items()))


def in_words(cluster: Cluster) -> list[str]:
    """A line for each node on the list: until when, why, and who noted it."""
    if not cluster.strikes:
        return [f"{cluster.name}: the profile names no strike list (`strikes: FILE`)"]
    lines = []
    for node, found in strikes_now(cluster).items():
        until = datetime.datetime.fromtimestamp(found["time"] + cluster.strike_days * DAY)
        who = f"{found.get('user', 'somebody')}, {found.get('job', 'by hand')}"
        lines.append(f"{node}  until {until:%Y-%m-%d %H:%M}  {found['cause']}  ({who})")
    return lines or [f"{cluster.name}: no node is on the strike list {cluster.strikes}"]


def _append(cluster: Cluster, facts: dict[str, Any]) -> None:
    """Add a line, whole, whoever else is at it."""
    record = {"time": time.time(), "cluster": cluster.name, "user": user_name()} | facts
    handle = _open(Path(cluster.strikes))
    try:
        # without locks (Lustre without -o flock) one write of a short line must do
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        line = json.dumps(record, ensure_ascii=False) + "\n"
        os.write(handle, (_torn(handle) + line).encode())
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """The list, open for appending; a new one belongs to its folder's group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, MODE)
    if fresh:
        with contextlib.suppress(PermissionError):  # one may not give to a group one is not in
            os.fchown(handle, -1, path.parent.stat().st_gid)
        os.fchmod(handle, MODE)  # whatever the umask
    return handle


def _torn(handle: int) -> str:
    """A line break when the last line has none: a full disk, or an editor."""
    size = os.fstat(handle).st_size
    return "\n" if size and os.pread(handle, 1, size - 1) != b"\n" else ""


def _read(cluster: Cluster) -> list[Strike]:
    """Every line of the list; one that is no strike is named and left where it is."""
    path = Path(cluster.strikes)
    if not cluster.strikes or not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        print(f"{path}: cannot be read, no node is left out: {error.strerror}", file=sys.stderr)
        return []
    records = []
    for number, line in enumerate(text.splitlines(), start=1):
        record = _strike_of(line)
        if record is not None:
            records.append(record)
        elif line.strip():
            print(f"{path}:{number}: is no strike, skipped: {line[:80]}", file=sys.stderr)
    return records


def _strike_of(line: str) -> Strike | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not ("cause" in record or "forget" in record):
        return None
    names = all(isinstance(record.get(key), str) for key in ("cluster", "node"))
    return record if names and isinstance(record.get("time"), (int, float)) else None
