"""The starts of a job: when each waited, ran and ended, on which nodes, as Slurm or files tell."""

import datetime
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from megatron_jobs.jobs.events import read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.runtime.files import read_json

PART = re.compile(r"[^,\[\]]+(?:\[[^\]]*\][^,\[\]]*)*|\[[^\]]*\][^,]*")
RANGE = re.compile(r"\[([^\]]*)\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start of a job. Times are seconds since 1970; None: not known, or not yet."""

    slurm_id: str = ""
    state: str = ""
    """Slurm's word for how it ended or what it does; for a local start nothing."""
    submitted: float | None = None
    """When this start began to wait: the submission, or the requeue before it."""
    eligible: float | None = None
    """When nothing but room was missing any more."""
    began: float
    ended: float | None = None
    nodes: tuple[str, ...] = ()
    cpus: int = 0
    """Cores, over all nodes."""
    gpus: int = 0
    """GPUs, over all nodes."""
    joules: float | None = None
    """Energy that Slurm measured."""

    def seconds(self, now: float) -> float:
        """How long it ran; until `now` when it has not ended."""
        return max(0.0, (now if self.ended is None else self.ended) - self.began)

    def as_record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def noted_starts(
    folder: JobFolder, resources: Mapping[str, Any], *, running: bool = False
) -> list[Start]:
    """The starts that the job's own files tell of, where Slurm is not asked or has forgotten them.

    Args:
        resources: of the job's config.yaml.
        running: whether the last one goes on.
    """
    if not folder.started.exists():
        return []
    starts = read_json(folder.started).get("starts", [])
    nodes = _nodes_of_starts(folder)
    cpus = resources["nodes"] * resources["ranks"] * resources["cpus"]
    last_end = None if running else max(_last_end(folder), starts[-1]["time"])
    return [
        Start(
            slurm_id=start.get("slurm_job_id", ""),
            began=start["time"],
            ended=last_end if start is starts[-1] else start.get("ended"),
            nodes=_nodes_at(nodes, start["time"]),
            cpus=cpus,
            gpus=resources["nodes"] * resources["gpus"],
        )
        for start in starts
    ]


def with_gpus(start: Start, gpus: int) -> Start:
    """A start that Slurm tells of, with the GPUs of its nodes where Slurm does not account them.

    By default it does not: AccountingStorageTRES, slurm.conf(5).

    Args:
        gpus: that were asked for on each node.
    """
    return start if start.gpus else replace(start, gpus=gpus * len(start.nodes))


def join_starts(told: Sequence[Start], noted: Sequence[Start]) -> list[Start]:
    """All starts in order: those that Slurm tells of, and those that it does not know (yet)."""
    more = [start for start in noted if not any(_is_same(start, other) for other in told)]
    return sorted([*told, *more], key=lambda start: start.began)


def _is_same(noted: Start, told: Start) -> bool:
    """Whether a start was noted while Slurm let it run; clocks may differ by some seconds."""
    ended = float("inf") if told.ended is None else told.ended
    return noted.slurm_id == told.slurm_id and told.began - 5 <= noted.began <= ended


def node_names(text: str) -> list[str]:
    """Slurm's short form of names written out: `n[1-2,07],m3` is n1 n2 n07 m3.

    Source: the hostlist expressions of scontrol(1), `show hostnames`.
    """
    return [name for part in PART.findall(text) for name in _written_out(part)]


def short_names(names: Sequence[str]) -> str:
    """Names as Slurm writes them: n1 n2 n07 m3 is `n[1-2],n07,m3`; the order stays."""
    found: list[str] = []
    for key, numbered in itertools.groupby(enumerate(names), key=_series):
        group = [name for _, name in numbered]
        if len(group) == 1:
            found += group
        else:
            head, width = str(key[0]), int(key[1])
            found.append(f"{head}[{group[0][-width:]}-{group[-1][-width:]}]")
    return ",".join(found)


def _series(numbered: tuple[int, str]) -> tuple[str, int, int]:
    """Equal for names that follow one another: what is before the number, its digits, an offset."""
    place, name = numbered
    head = name.rstrip("0123456789")
    digits = name[len(head) :]
    return (head, len(digits), int(digits) - place) if digits else (name, 0, -place)


def _written_out(part: str) -> list[str]:
    found = RANGE.search(part)
    if found is None:
        return [part]
    names = []
    for numbers in found.group(1).split(","):
        first, _, last = numbers.partition("-")
        for number in range(int(first), int(last or first) + 1):
            filled = f"{number:0{len(first)}d}"
            names += _written_out(part[: found.start()] + filled + part[found.end() :])
    return names


def _last_end(folder: JobFolder) -> float:
    """When the last start ended: as the receipt says, by the time of the file that is written
    then, or by the last sign of life."""
    said = (read_receipt(folder) or {}).get("ended")
    if said:  # the file's own time is that of a copy, if it is one
        return datetime.datetime.fromisoformat(said).timestamp()
    for path in (folder.receipt, folder.outcome, folder.stopped):
        if path.exists():
            return path.stat().st_mtime
    signs = [*folder.rank_logs(), folder.started]
    return max(path.stat().st_mtime for path in signs)


def _nodes_of_starts(folder: JobFolder) -> list[tuple[float, tuple[str, ...]]]:
    events = read_events(folder)
    return [(e["time"], tuple(e.get("nodes") or ())) for e in events if e["event"] == "start"]


def _nodes_at(starts: list[tuple[float, tuple[str, ...]]], began: float) -> tuple[str, ...]:
    """The nodes of the event `start` that is nearest in time, if it is within a minute."""
    near = min(starts, key=lambda start: abs(start[0] - began), default=None)
    return near[1] if near is not None and abs(near[0] - began) < 60 else ()
