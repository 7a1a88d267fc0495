"""A sign of life of each rank: a small record in a file on its node, written anew as it works.

The files stand in memory of the node (/dev/shm, unless the cluster's profile names another place):
a sign costs microseconds and no network. Whoever watches the node reads them, and may send USR1 to
a rank: all its Python stacks are then appended to a file beside, even while its main thread waits
inside C for another rank.

A rank counts as watched from its first `beat` until `rest`: work that gives no signs is never
taken for a stall.
"""

import contextlib
import faulthandler
import hashlib
import os
import shutil
import signal
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_jobs.runtime.rank import Rank

RECORD = struct.Struct("<IQiqddB40s")
"""Process, its birth, rank, step, time, own seconds, watched, what; before it their CRC-32."""
CHECKSUM = struct.Struct("<I")
SMOOTHING = 0.2
"""Weight of the newest step in the mean of a rank's own seconds."""
DUMP_SIGNAL = signal.SIGUSR1
LEFTOVER_SECONDS = 3600
"""What killed ranks left is removed when it is so old, by the next start on the node."""
COLLECTIVES = "nccl-"
"""How the names of NCCL's files begin."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The last sign of life of one rank."""

    rank: int
    pid: int
    born: int
    """When the process began, in the kernel's ticks: tells it from a later one of the same id."""
    step: int = -1
    """-1 before the first `beat`."""
    what: str = ""
    """What the rank is about: data, optimizer, save."""
    time: float = 0.0
    """Seconds since 1970, by the node's clock."""
    own_seconds: float = 0.0
    """Work of its own in a step, without waiting for other ranks: a mean of the last steps."""
    watched: bool = False
    """Whether silence of this rank may be a stall."""

    def lives(self) -> bool:
        """Whether the process is still there (a dead one that nobody has waited for counts)."""
        return birth_of(self.pid) == self.born


@dataclass(slots=True)
class _Own:
    """This process's record and where it is written."""

    handle: int
    beat: Beat


_own: list[_Own] = []
"""Empty, or the one record of this process."""


def node_folder(job: Path, *, start: str, host: str, scratch: str = "") -> Path:
    """Where the ranks of one start of a job leave their records on this node.

    Args:
        job: the job's folder.
        start: `Rank.start`.
        host: the node's name: nodes of a test cluster share a machine.
        scratch: the profile's folder for such things; left aside where it cannot be written to.
    """
    return _place(scratch) / f"{_prefix(job)}{start}-{host}"


def starts_on_node(job: Path, *, host: str, scratch: str = "") -> list[Path]:
    """The folders of all starts of a job on this node: the running one, and leftovers."""
    return sorted(_place(scratch).glob(f"{_prefix(job)}*-{host}"))


def remove_leftovers(*, host: str, scratch: str = "") -> None:
    """Remove this user's folders on this node none of whose processes lives, old ones only."""
    for folder in _place(scratch).glob(f"mj-{os.getuid()}-{'[0-9a-f]' * 12}-*-{host}"):
        with contextlib.suppress(FileNotFoundError):  # removed by its owner
            times = [path.stat().st_mtime for path in (folder, *folder.glob("*.beat"))]
            old = time.time() - max(times) > LEFTOVER_SECONDS
            if old and not any(found.lives() for found in read_beats(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def _prefix(job: Path) -> str:
    name = hashlib.sha256(os.fsencode(os.path.realpath(job))).hexdigest()[:12]
    return f"mj-{os.getuid()}-{name}-"


def _place(scratch: str) -> Path:
    for place in (scratch, "/dev/shm"):
        if place and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    return Path(tempfile.gettempdir())


@contextlib.contextmanager
def open_heartbeat(rank: Rank, folder: Path) -> Iterator[Path]:
    """Inside, this process gives signs of life in `folder` (`node_folder`) and shows its stacks.

    Gives the folder. Where the files cannot be written that is said, and the rank works all the
    same.
    """
    with contextlib.ExitStack() as stack:
        try:
            own = _open(rank, folder, stack)
        except OSError as error:
            print(f"no heartbeat: {error}", flush=True)
        else:
            _own.append(own)
            stack.callback(_own.clear)
            _write(own)
        yield folder


def _open(rank: Rank, folder: Path, stack: contextlib.ExitStack) -> _Own:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stack.callback(_remove_if_empty, folder)
    file = beat_file(folder, rank.index)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    stack.callback(file.unlink, missing_ok=True)
    stack.callback(os.close, handle)
    dumps = stack_file(folder, rank.index)
    dump = stack.enter_context(dumps.open("w", encoding="utf-8"))
    stack.callback(dumps.unlink, missing_ok=True)
    stack.callback(_remove_all, folder, f"{COLLECTIVES}{rank.index}[.]*")
    signal.signal(DUMP_SIGNAL, signal.SIG_IGN)  # what a late USR1 meets after us
    faulthandler.register(DUMP_SIGNAL, file=dump, all_threads=True)
    stack.callback(faulthandler.unregister, DUMP_SIGNAL)
    pid = os.getpid()
    return _Own(handle, Beat(rank.index, pid, birth_of(pid), time=time.time()))


def record_collectives(folder: Path) -> None:
    """Let NCCL's flight recorder write what it knows to `folder` when it is asked through a pipe.

    To be called before ranks connect. What a profile or a user has set is left as it is.
    Source: "PYTORCH ProcessGroupNCCL Environment Variables" in the documentation of torch, and
    ProcessGroupNCCL.hpp, DumpPipe: the pipe is called <prefix><rank>.pipe, the file <prefix><rank>.
    """
    os.environ.setdefault("TORCH_NCCL_TRACE_BUFFER_SIZE", "2000")  # without it there is no pipe
    for name in ("TORCH_NCCL_DEBUG_INFO_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_PIPE_FILE"):
        os.environ.setdefault(name, str(folder / COLLECTIVES))


def beat_file(folder: Path, rank: int) -> Path:
    """The record of a rank."""
    return folder / f"{rank:05d}.beat"


def stack_file(folder: Path, rank: int) -> Path:
    """What a rank appends its stacks to when it gets USR1."""
    return folder / f"{rank:05d}.stack"


def beat(step: int, what: str, *, own_seconds: float | None = None) -> None:
    """Give a sign of life; does nothing where no heartbeat is open. Costs microseconds.

    Args:
        step: which step, batch or item this rank is at.
        what: what it begins to do.
        own_seconds: how long it worked in the step that ended, without waiting for other ranks.
    """
    for own in _own:
        seconds = own.beat.own_seconds
        if own_seconds is not None:
            share = SMOOTHING if seconds else 1.0
            seconds += share * (own_seconds - seconds)
        own.beat = replace(
            own.beat, step=step, what=what, time=time.time(), own_seconds=seconds, watched=True
        )
        _write(own)


def pulse(what: str = "") -> None:
    """Give a sign of life within the step, if there has been a `beat`; `what` if it changed."""
    for own in _own:
        if own.beat.watched:
            own.beat = replace(own.beat, what=what or own.beat.what, time=time.time())
            _write(own)


def rest(what: str) -> None:
    """From here on silence is no stall: the steps are over, `what` is done after them."""
    for own in _own:
        own.beat = replace(own.beat, what=what, time=time.time(), watched=False)
        _write(own)


def _write(own: _Own) -> None:
    last = own.beat
    what = last.what.encode()[:40]
    body = RECORD.pack(
        last.pid, last.born, last.rank, last.step, last.time, last.own_seconds, last.watched, what
    )
    os.pwrite(own.handle, CHECKSUM.pack(zlib.crc32(body)) + body, 0)


def read_beats(folder: Path) -> list[Beat]:
    """The records of all ranks that work on this node, in the order of the ranks."""
    found = [_read(path) for path in sorted(folder.glob("*.beat"))]
    return [beat for beat in found if beat is not None]


def _read(path: Path, tries: int = 5) -> Beat | None:
    """A whole record; None when it is gone, or not written yet."""
    for _ in range(tries):
        try:
            found = path.read_bytes()
        except OSError:
            return None
        body = found[CHECKSUM.size :]
        if len(body) == RECORD.size and found == CHECKSUM.pack(zlib.crc32(body)) + body:
            pid, born, rank, step, at, own, watched, what = RECORD.unpack(body)
            text = what.rstrip(b"\0").decode(errors="ignore")
            return Beat(rank, pid, born, step, text, at, own, bool(watched))
    return None


def _remove_all(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def birth_of(pid: int) -> int:
    """When a process began, in ticks since the machine did; 0 when there is none (Linux).

    Source: proc(5), /proc/PID/stat, field 22.
    """
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def stat_fields(pid: int) -> list[str]:
    """What /proc/PID/stat tells from field 3, the state, on; nothing when there is no process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
