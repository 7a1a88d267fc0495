"""What a start of a job left for the triage: the ends of its logs, its ranks' last words.

Logs are appended to by each start, so each part is cut out by the line that divides starts
(`runtime.launch.mark_start`, the batch script's first line). However many ranks there are, no more
than READ_BYTES are read: first of those that failed, in the order in which they did.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from megatron_jobs.jobs.events import Event, read_events
from megatron_jobs.jobs.folder import JobFolder, read_job
from megatron_jobs.jobs.starts import node_names
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.launch import MARK

READ_BYTES = 8_000_000
"""In all."""
TAIL_BYTES = 24_000
"""Of each rank's log; of the batch script's twenty times as many."""
CLOCKS = 5.0
"""Seconds by which the clocks of nodes and file servers may differ."""
HEADER = re.compile(r"^\S+ Slurm job (?P<id>\S+), restart (?P<restart>\d+),? on (?P<nodes>\S+)")
MARKED = re.compile(rf"^{re.escape(MARK)}rank \d+ of \d+ on (?P<node>\S+),", re.MULTILINE)
FRAME = re.compile(r'^ +File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
FOREIGN = re.compile(r"/site-packages/|/dist-packages/|/lib/python\d|<frozen|<string>")


@dataclass(frozen=True, slots=True)
class Words:
    """What one rank, or the batch script, wrote in a start."""

    file: Path
    time: float
    """When the file was written last, in seconds since 1970."""
    text: str
    rank: int | None = None
    node: str = ""
    """Empty: not said there."""


@dataclass(slots=True)
class Start:
    """The last start of a job, as its folder tells it."""

    folder: JobFolder
    began: float = 0.0
    nodes: list[str] = field(default_factory=list)
    """Those that the ranks ran on, in their order; empty when not known."""
    ranks: int = 1
    """On each node."""
    gpus: int = 0
    """Of each node that the job asks for."""
    events: list[Event] = field(default_factory=list)
    """Of this start, and before them..."""
    before: list[Event] = field(default_factory=list)
    batch: Words | None = None

    def node_of(self, rank: int | None) -> str:
        """The node of a rank by srun's order of tasks; nothing when it is not known."""
        if rank is None or rank // self.ranks >= len(self.nodes):
            return ""
        return self.nodes[rank // self.ranks]


def last_start(folder: JobFolder) -> Start:
    """The last start: since when, where, and what the batch script wrote in it."""
    events = read_events(folder)
    places = [place for place, event in enumerate(events) if event["event"] == "start"]
    noted = read_json(folder.started)["starts"][-1] if folder.started.exists() else {"time": 0.0}
    here = noted.get("slurm_job_id") == ""  # on this machine: no events tell of it
    first = places[-1] if places and not here else len(events)
    start = Start(folder, events=events[first:], before=events[:first])
    begun = start.events[0] if start.events else {}
    start.began = float((begun or noted)["time"])
    resources = read_job(folder)["resources"] if folder.config.exists() else {}
    start.ranks, start.gpus = int(resources.get("ranks", 1)), int(resources.get("gpus", 0))
    start.batch, nodes = _batch_words(folder, begun)
    unused = {node for event in start.events for node in event.get("left_out") or ()}
    good = [node for node in begun.get("nodes") or nodes if node not in unused]
    start.nodes = good[: int(resources.get("nodes", len(good)))]
    return start


def _batch_words(folder: JobFolder, begun: Event) -> tuple[Words | None, list[str]]:
    """The part of the batch log that belongs to a start, and the nodes in its first line."""
    paths = [folder.logs / name for name in ("batch.log", "launch.log")]
    path = max(filter(Path.exists, paths), key=lambda path: path.stat().st_mtime, default=None)
    if path is None:
        return None, []
    lines = _tail(path, 20 * TAIL_BYTES).splitlines()
    headers = [(place, found) for place, found in enumerate(map(HEADER.match, lines)) if found]
    if not headers:
        return Words(path, path.stat().st_mtime, "\n".join(lines)), []
    chosen = len(headers) - 1
    for place, (_, found) in enumerate(headers):
        if begun.get("slurm_job_id") == found["id"] and _restart_fits(begun, found["restart"]):
            chosen = place
    first, header = headers[chosen]
    end = headers[chosen + 1][0] if chosen + 1 < len(headers) else len(lines)
    words = Words(path, path.stat().st_mtime, "\n".join(lines[first + 1 : end]))
    return words, node_names(header["nodes"])


def _restart_fits(begun: Event, restart: str) -> bool:
    """Whether a header is of the start; one that does not say Slurm's count is of its last."""
    return str(begun.get("slurm_restart", restart)) == restart


def last_words(start: Start) -> Iterator[Words]:
    """What each rank that failed left on purpose, the first first."""
    files = [(path.stat().st_mtime, path) for path in start.folder.rank_errors()]
    for time, path in sorted(files)[: READ_BYTES // TAIL_BYTES]:
        yield Words(path, time, _tail(path, TAIL_BYTES), rank_of(path))


def rank_words(start: Start, first: list[int]) -> Iterator[Words]:
    """The ends of the ranks' logs, as this start wrote them.

    Args:
        first: ranks that failed, in their order: their logs are read before the others', which
            come in the order in which they fell silent.
    """
    order = {rank: place for place, rank in enumerate(dict.fromkeys(first))}
    files = [(path.stat().st_mtime, path) for path in start.folder.rank_logs()]
    fresh = [(time, path) for time, path in files if time >= start.began - CLOCKS]
    fresh.sort(key=lambda pair: (order.get(rank_of(pair[1]), len(order)), pair[0]))
    for time, path in fresh[: READ_BYTES // TAIL_BYTES]:
        text = _tail(path, TAIL_BYTES)
        marks = list(MARKED.finditer(text))
        node = marks[-1]["node"] if marks else ""
        text = text[marks[-1].end() :] if marks else text
        yield Words(path, time, text, rank_of(path), node)


def rank_of(path: Path) -> int:
    """The number in the name of a rank's log."""
    return int(path.stem.removeprefix("rank-"))


@dataclass(frozen=True, slots=True)
class Raised:
    """A Python error."""

    words: str
    """Its last line: class and message."""
    place: str
    """FILE:LINE of the innermost frame outside installed packages, or of the innermost."""
    all: tuple[str, ...]
    """Every line of the message."""


def raised_in(text: str) -> Raised | None:
    """The error at the end of the last traceback in a text; None when there is none."""
    _, found, rest = text.rpartition("Traceback (most recent call last):\n")
    if not found:
        return None
    lines = rest.splitlines()
    message = [place for place, line in enumerate(lines) if line and not line.startswith(" ")]
    if not message:
        return None
    frames = list(FRAME.finditer("\n".join(lines[: message[0]])))
    own = [frame for frame in frames if not FOREIGN.search(frame["file"])] or frames
    place = f"{_short_path(own[-1]['file'])}:{own[-1]['line']}" if own else ""
    return Raised(lines[message[0]], place, tuple(lines[message[0] : message[0] + 40]))


def _short_path(name: str) -> str:
    """A file of ours from the package's name on; another whole."""
    _, found, rest = name.rpartition("/megatron_jobs/")
    return f"megatron_jobs/{rest}" if found else name


def _tail(path: Path, most: int) -> str:
    """The last bytes of a file, from the beginning of a line."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - most))
        data = file.read()
    if size > most:
        data = data.partition(b"\n")[2]
    return data.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
