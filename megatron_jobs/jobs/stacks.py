"""What each rank of a running job is doing: its Python stacks and its process's state.

A watch collects them on its node (`collect`); who wants them for a whole job asks all watches
through a file in RUN/JOB/watch (`ask`), and they answer with a file each, in groups of nodes: no
folder has thousands of writers.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from megatron_jobs.jobs.arrays import short_list
from megatron_jobs.jobs.cluster import cluster_of
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.runtime.files import PARTIAL
from megatron_jobs.runtime.heartbeat import (
    COLLECTIVES,
    DUMP_SIGNAL,
    Beat,
    node_folder,
    read_beats,
    stack_file,
    stat_fields,
)
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.runtime.shared import read_shared

GROUP = 100
"""Nodes whose files stand in one folder."""
DUMP_SECONDS = 3.0
"""How long a rank has to write its stacks: the signal is answered at once, or not at all."""
STATES = {"T": "stopped", "t": "traced", "D": "disk", "Z": "dead", "X": "dead"}
"""Letters of /proc/PID/stat that tell more than that a process runs or sleeps."""
THREAD = re.compile(r"^(?:Current thread|Thread) 0x[0-9a-f]+.*\(most recent call first\):$", re.M)
FRAME = re.compile(r'^  File "(.*)", line (\d+|\?\?\?) in (.*)$', re.M)
WAITS_IN = (
    "/torch/distributed/",
    "/megatron/core/pipeline_parallel/p2p_communication.py",
    "/megatron/core/distributed/",
    "/megatron/core/tensor_parallel/mappings.py",
    "/megatron/core/optimizer/clip_grads.py",
)
"""Files whose functions, innermost in a stack, wait for other ranks."""
WAITS_BY = ("all_agree", "add_up", "common_wish", "synchronize", "wait_for_device")
"""Functions that wait for the GPU, and so for other ranks, without a frame of torch's on top."""


class Frame(NamedTuple):
    """One line of a stack."""

    file: str
    line: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RankState:
    """What is known of one rank at one moment."""

    rank: int
    node: str
    step: int = -1
    what: str = ""
    time: float = 0.0
    """Of its last sign of life."""
    watched: bool = True
    state: str = ""
    """Of its process: stopped, traced, disk, dead, gone; silent: its node's watch does not answer.
    Empty: it runs."""
    wchan: str = ""
    """The kernel's function in which it waits, where that may be read."""
    stacks: str = ""
    """All its threads, as faulthandler writes them."""

    def frames(self) -> list[Frame]:
        """The main thread's stack, innermost first."""
        return main_stack(self.stacks)

    def waits(self) -> str:
        """The function by which it waits for other ranks, or nothing."""
        frames = [frame for frame in self.frames() if frame.name != "wrapper"]
        if frames and any(part in frames[0].file for part in WAITS_IN):
            return frames[0].name
        return frames[0].name if frames and frames[0].name in WAITS_BY else ""

    def place(self) -> str:
        """`file:line function` of the innermost frame that is neither Python's nor a package's."""
        frames = self.frames()
        own = [frame for frame in frames if "/lib/python3" not in frame.file]
        for frame in (own or frames)[:1]:
            return f"{shortened(frame.file)}:{frame.line} {frame.name}"
        return ""


def main_stack(dump: str) -> list[Frame]:
    """The main thread's frames in what faulthandler wrote: it lists the oldest thread last."""
    threads = [FRAME.findall(part) for part in THREAD.split(dump)[1:]]
    stacks = [[Frame(*frame) for frame in thread] for thread in threads if thread]
    return next(reversed(stacks), [])


def shortened(file: str) -> str:
    """The end of a path that tells where in the code it is."""
    parts = Path(file).parts
    first = parts.index("megatron_jobs") if "megatron_jobs" in parts else len(parts) - 3
    return "/".join(parts[max(first, 0) :])


def scratch_of(folder: JobFolder) -> str:
    """The folder local to each node that the job's profile names, or nothing."""
    cluster = cluster_of(folder)
    return cluster.scratch if cluster else ""


def heartbeats_of(folder: JobFolder, rank: Rank) -> Path:
    """Where the ranks on this process's node leave their heartbeats in this start of the job."""
    scratch = scratch_of(folder)
    return node_folder(folder.path, start=rank.start, host=rank.host, scratch=scratch)


def collect(place: Path, node: str, keep: Path | None = None) -> list[RankState]:
    """The state and stacks, now, of every rank that has a record in a node's folder.

    Args:
        place: `heartbeat.node_folder`.
        node: its name.
        keep: folder for the files of NCCL's flight recorder, where there is one.
    """
    beats = read_beats(place)
    sizes = {beat.rank: size_of(stack_file(place, beat.rank)) for beat in beats}
    asked = [beat for beat in beats if beat.lives() and state_of(beat) not in ("stopped", "dead")]
    for beat in asked:
        with contextlib.suppress(ProcessLookupError):
            os.kill(beat.pid, DUMP_SIGNAL)
    recorded = [file for beat in beats for file in ask_recorder(place, beat.rank)]
    wait_for_growth([(stack_file(place, beat.rank), sizes[beat.rank]) for beat in asked])
    if keep is not None:
        keep_files(recorded, keep)
    return [rank_state(beat, place, node, sizes[beat.rank]) for beat in beats]


def rank_state(beat: Beat, place: Path, node: str, seen: int) -> RankState:
    """All about one rank; its stacks are what stands after byte `seen` of its file."""
    try:
        stacks = stack_file(place, beat.rank).read_bytes()[seen:].decode(errors="replace")
    except FileNotFoundError:
        stacks = ""
    return RankState(
        rank=beat.rank,
        node=node,
        step=beat.step,
        what=beat.what,
        time=beat.time,
        watched=beat.watched,
        state=state_of(beat),
        wchan=wchan_of(beat.pid),
        stacks=stacks,
    )


def state_of(beat: Beat) -> str:
    """A word of `STATES`, gone, or nothing for a process that runs or sleeps."""
    fields = stat_fields(beat.pid)
    if not fields or int(fields[19]) != beat.born:
        return "gone"
    return STATES.get(fields[0], "")


def wchan_of(pid: int) -> str:
    """Where in the kernel a process waits. Source: proc(5), /proc/PID/wchan."""
    try:
        return Path(f"/proc/{pid}/wchan").read_text(encoding="utf-8").strip("0")
    except OSError:
        return ""


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def wait_for_growth(files: Sequence[tuple[Path, int]]) -> None:
    """Return when every file is larger than it was and none grows any more, or DUMP_SECONDS on."""
    end = time.monotonic() + DUMP_SECONDS
    before: list[int] = []
    while time.monotonic() < end:
        sizes = [size_of(path) for path, _ in files]
        if sizes == before and all(s > was for s, (_, was) in zip(sizes, files, strict=True)):
            return
        before = sizes
        time.sleep(0.1)


def ask_recorder(place: Path, rank: int) -> list[Path]:
    """Ask NCCL's flight recorder of a rank for its file; nothing where there is none."""
    try:
        pipe = os.open(place / f"{COLLECTIVES}{rank}.pipe", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # no such pipe, or nobody reads it
        return []
    os.write(pipe, b"dump\n")
    os.close(pipe)
    return [place / f"{COLLECTIVES}{rank}"]


def keep_files(files: list[Path], folder: Path) -> None:
    """Copy files that are about to appear."""
    wait_for_growth([(path, 0) for path in files])
    for path in files:
        if path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            folder.joinpath(path.name).write_bytes(path.read_bytes())


def merged(ranks: Iterable[RankState]) -> str:
    """Text for people: ranks whose main threads stand at the same place are shown once."""
    groups: dict[tuple[Any, ...], list[RankState]] = {}
    for rank in sorted(ranks, key=lambda rank: rank.rank):
        groups.setdefault((rank.state, tuple(rank.frames())), []).append(rank)
    return "\n".join(map(_shown, sorted(groups.values(), key=len)))


def _shown(group: list[RankState]) -> str:
    first = group[0]
    nodes = sorted({rank.node for rank in group})
    where = nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes, the first is {first.node}"
    count = "1 rank" if len(group) == 1 else f"{len(group)} ranks"
    state = f"{first.state} " if first.state else ""
    lines = [f"{count}: {state}{short_list(rank.rank for rank in group)} on {where}"]
    if first.step >= 0:
        lines[0] += f"; step {first.step}, in {first.what}"
    if first.wchan:
        lines[0] += f" (kernel: {first.wchan})"
    lines += [f'  File "{file}", line {line} in {name}' for file, line, name in first.frames()]
    return "\n".join(lines) + "\n"


def in_group(folder: Path, node: int, name: str) -> Path:
    """The file of a node below a folder, one of those of its group."""
    return folder / f"{node // GROUP:03d}" / f"{name}.json"


def put(path: Path, value: Any) -> None:
    """Write a small file of JSON, whole; it is for watching, and not forced to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(path)


def get(path: Path) -> dict[str, Any]:
    """What `put` wrote; nothing where it has not yet, or the file system is behind."""
    return _parsed(path, Path.read_text)


def _parsed(path: Path, read: Callable[[Path], str]) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(read(path))
    except (OSError, ValueError):
        return {}
    return value


def request_file(folder: JobFolder) -> Path:
    """What the watches are asked, in one file that all of them look at: {id, start, end}."""
    return folder.watch / "request.json"


def request(folder: JobFolder) -> dict[str, Any]:
    """What was asked last; nothing, in a file that is made for it, when nothing ever was."""
    return _parsed(request_file(folder), read_shared)


def ask(folder: JobFolder, start: str, *, end: bool = False) -> Path:
    """Ask all watches of a start for their ranks' stacks; the folder of their answers.

    Args:
        end: have them kill their ranks instead.
    """
    name = str(time.time_ns())
    put(request_file(folder), {"id": name, "start": start, "end": end})
    return folder.watch / "stacks" / name


def ask_again(folder: JobFolder, place: Path) -> None:
    """Repeat the question whose answers go to `place`, for watches that have missed it."""
    if (last := request(folder)).get("id") == place.name:
        put(request_file(folder), last)


def answer(path: Path, ranks: list[RankState]) -> None:
    """Leave a node's ranks where `ask` said."""
    put(path, {"ranks": [asdict(rank) for rank in ranks]})


def answers(place: Path, nodes: Mapping[str, int]) -> dict[str, list[RankState]]:
    """The ranks of each of these nodes that has answered until now; nodes are name -> number."""
    found = {
        name: _parsed(in_group(place, node, name), read_shared) for name, node in nodes.items()
    }
    return {
        name: [RankState(**rank) for rank in value["ranks"]]
        for name, value in found.items()
        if value
    }
