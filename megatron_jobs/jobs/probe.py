"""A job of one minute that tells what a node is like, and what happens when time runs out."""

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.queue import call_slurm

SCRIPT = Path(__file__).with_name("probe.sh")
LIMIT_SECONDS = 60
WARNING_SECONDS = 15
"""What a job of that length is given: a quarter of its limit; see `executor`."""
PATIENCE_SECONDS = 600
"""How long the probe may wait in the queue."""
SILENCE_SECONDS = 120
"""How long squeue may fail before the probe is given up: controllers are busy, and restarted."""
VISIBLE_SECONDS = 20
"""How long after its end a file system may take to show what the node wrote."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that came; seconds since the script began."""

    who: str
    """`script` or `step`."""
    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """What the node said."""

    slurm_id: str
    words: tuple[tuple[str, str], ...]
    """(name, value) in order; see probe.sh."""
    signals: tuple[Signal, ...] = ()
    ends: dict[str, float] = field(default_factory=dict)
    """Who -> seconds since the script began at which it was last alive."""

    def value(self, name: str) -> str:
        """The value of that name; empty when the node said nothing of it."""
        return next((value for key, value in self.words if key == name), "")

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.words if key == name]

    def says_yes(self, name: str) -> bool:
        return self.value(name) == "yes"

    def when(self, who: str, name: str) -> float | None:
        """Seconds at which a signal first came; None if it did not."""
        found = (note.seconds for note in self.signals if (note.who, note.name) == (who, name))
        return next(found, None)


def run_probe(sbatch_words: list[str], tell: Callable[[str], None]) -> Probe:
    """Submit the probe, wait for it, and read what it left.

    Args:
        sbatch_words: partition, account and GPUs.
        tell: called with a line whenever there is news.
    Raises: UserError when Slurm refuses it, when it does not start in ten minutes, or when nothing
        came back; the probe is then cancelled.
    """
    with _probe_folder() as folder, _door() as (host, port), _home_token() as token:
        words = [f"--time={LIMIT_SECONDS // 60}", f"--signal=USR2@{WARNING_SECONDS}"]
        words += ["--job-name=mj-discover", "--nodes=1", "--ntasks=1", "--no-requeue"]
        words += ["--output=batch.log", f"--chdir={folder}", *sbatch_words]
        command = ["sbatch", "--parsable", *words, str(folder / SCRIPT.name)]
        done = call_slurm([*command, host, str(port), sys.executable, token])
        if done.returncode != 0:
            raise UserError(f"the probe was refused: {done.stderr.strip()}")
        slurm_id = done.stdout.strip().partition(";")[0]
        tell(f"Slurm job {slurm_id} looks at a node: about a minute and a half once it runs")
        try:
            _wait(slurm_id, tell)
            _wait_for_words(folder)
            return read_probe(slurm_id, folder)
        except BaseException:
            with contextlib.suppress(UserError):  # what went wrong first is the news
                call_slurm(["scancel", slurm_id])
            raise


def read_probe(slurm_id: str, folder: Path) -> Probe:
    """What a probe left in its folder."""
    words = _lines(folder / "batch.log")
    named = dict(words)
    if "started" not in named:
        raise UserError(
            f"{folder}: the probe left nothing there; the nodes must see this folder, so start "
            "from one that is shared"
        )
    start = float(named["started"])
    lines = words + _lines(folder / "step.out")
    notes = [value.split() for name, value in lines if name == "signal"]
    whole = [note for note in notes if len(note) == 3]  # it may be killed while it writes
    ends = {
        path.suffix[1:]: float(path.read_text() or start) - start for path in folder.glob("alive.*")
    }
    return Probe(
        slurm_id=slurm_id,
        words=tuple(words),
        signals=tuple(
            Signal(who, name, float(when) - start)
            for who, name, when in sorted(whole, key=lambda note: float(note[2]))
        ),
        ends=ends,
    )


def _lines(path: Path) -> list[tuple[str, str]]:
    if not path.exists():
        return []
    pairs = (line.partition("\t") for line in path.read_text(errors="replace").splitlines())
    return [(name, value.strip()) for name, tab, value in pairs if tab]


@contextlib.contextmanager
def _probe_folder() -> Iterator[Path]:
    """A folder here, which the nodes are hoped to see; gone afterwards."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".mj-discover-", dir=os.getcwd()))
    except OSError as error:
        cure = "start from a folder of yours that the nodes see"
        raise UserError(f"{os.getcwd()}: cannot be written to: {error.strerror}; {cure}") from error
    try:
        shutil.copy(SCRIPT, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a node may still be writing


@contextlib.contextmanager
def _door() -> Iterator[tuple[str, int]]:
    """A port of this machine that answers; the kernel does, for a few knocks."""
    with socket.create_server(("", 0)) as door:
        yield socket.gethostname(), door.getsockname()[1]


@contextlib.contextmanager
def _home_token() -> Iterator[str]:
    """Name of a file in the home, for the node to look for; empty when none can be made."""
    try:
        handle, name = tempfile.mkstemp(prefix=".mj-discover-", dir=Path.home())
    except (OSError, RuntimeError):  # RuntimeError: no home
        yield ""
        return
    os.close(handle)
    try:
        yield Path(name).name
    finally:
        Path(name).unlink(missing_ok=True)


def _wait(slurm_id: str, tell: Callable[[str], None]) -> None:
    """Until the job has ended; UserError when it waits too long, or Slurm says nothing of it."""
    heard = time.monotonic()
    end = heard + PATIENCE_SECONDS
    before = ""
    while True:
        answer, fault = _ask_state(slurm_id)
        now = time.monotonic()
        if fault and now - heard > SILENCE_SECONDS:
            raise UserError(f"the probe is cancelled: squeue fails for 2 minutes: {fault}")
        if fault:
            time.sleep(1)
            continue
        heard = now
        state, _, reason = answer.partition(" ")
        if not state or state in ("TIMEOUT", "COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL"):
            return
        if state == "PENDING" and now > end:
            raise UserError(
                f"the probe did not start within 10 minutes ({reason}); it is cancelled"
            )
        if state != before:
            tell(f"{state.lower()}{f' ({reason})' if state == 'PENDING' else ''}")
        before = state
        time.sleep(1)


def _ask_state(slurm_id: str) -> tuple[str, str]:
    """State and reason, nothing for a job that Slurm has forgotten; or else why squeue failed."""
    try:
        done = call_slurm(["squeue", "--noheader", f"--jobs={slurm_id}", "--format=%T %r"])
    except UserError as error:
        return "", str(error)
    if done.returncode == 0 or "Invalid job id" in done.stderr:
        return done.stdout.strip(), ""
    return "", done.stderr.strip() or f"exit status {done.returncode}"


def _wait_for_words(folder: Path) -> None:
    """Until what the node wrote is seen here, or cannot be expected any more."""
    end = time.monotonic() + VISIBLE_SECONDS
    while "started" not in dict(_lines(folder / "batch.log")) and time.monotonic() < end:
        os.listdir(folder)  # makes NFS look again
        time.sleep(0.5)
