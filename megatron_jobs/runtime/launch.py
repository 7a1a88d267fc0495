"""Ranks as processes forked from one parent that has imported everything: under a second to start.

One rank that dies takes the others down within seconds, and its own last words come first.
"""

import contextlib
import ctypes
import datetime
import multiprocessing
import os
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

from megatron_jobs.errors import (
    EXIT_BUG,
    EXIT_DONE,
    EXIT_STOPPED,
    EXIT_USER,
    DataError,
    Stopped,
    UserError,
)
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.runtime.stop import install_stop_signals, note_stop, wanted_signals

GRACE_SECONDS = 3.0
"""Between the end of the first failed rank and the kill of those still alive."""


PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""
MARK = "--- goes on: "
"""Begins the line that divides two starts in the log of a rank."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a set of ranks ended."""

    status: int
    """Exit status: 0, or that of the rank that failed first; negative for a signal."""
    guilty: int = -1
    """The rank that failed first; -1 when none did."""

    @property
    def signal(self) -> str:
        """Name of the signal that ended the guilty rank, or nothing."""
        return signal.Signals(-self.status).name if self.status < 0 else ""


def fork_ranks(
    work: Callable[[Rank], object],
    world: int,
    *,
    attempt: str = "",
    error_file: Callable[[int], Path],
    output_file: Callable[[int], Path] | None = None,
) -> Outcome:
    """Run `work(rank)` in `world` forked processes and wait for all of them.

    Args:
        work: called once in each process; an exception ends it with that error's exit status.
        attempt: the name of this start, on each Rank.
        error_file: where rank i leaves its traceback when it fails.
        output_file: what rank i's stdout and stderr are appended to; None leaves them alone.
    Returns: the status of the rank that failed first, or 0.
    """
    context = multiprocessing.get_context("fork")
    started = attempt or f"{os.getpid()}.{time.monotonic_ns()}"
    alone = Rank(world=world, local_world=world, host=os.uname().nodename, attempt=started)
    ranks = [replace(alone, index=index, local=index) for index in range(world)]
    processes: list[BaseProcess] = []
    for rank in ranks:
        error_file(rank.index).unlink(missing_ok=True)
        out = output_file(rank.index) if output_file else None
        arguments = (work, rank, error_file(rank.index), out, os.getpid())
        processes.append(context.Process(target=_rank_main, args=arguments))
    with _forward_signals(processes), _killed_on_error(processes):
        for process in processes:
            process.start()
        return _supervise(processes)


@contextlib.contextmanager
def _killed_on_error(processes: list[BaseProcess]) -> Iterator[None]:
    """Whatever goes wrong here, no rank outlives it."""
    try:
        yield
    except BaseException:
        for process in processes:
            if process.pid is not None:
                process.kill()
        raise


def _rank_main(
    work: Callable[[Rank], object],
    rank: Rank,
    error_file: Path,
    output_file: Path | None,
    parent: int,
) -> None:
    """The whole life of one forked rank; never returns."""
    install_stop_signals()
    end_with_parent(parent)
    if output_file is not None:
        append_output_to(output_file)
        mark_start(rank)
    status = run_and_report(lambda: work(rank), error_file)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(status)


def append_output_to(path: Path) -> None:
    """Send this process's stdout and stderr to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  (open until the end)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115


def mark_start(rank: Rank) -> None:
    """Print a line that divides this start from those before it in a log that is appended to."""
    log = os.fstat(1)
    if rank.restart or (stat.S_ISREG(log.st_mode) and log.st_size):
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        print(f"{MARK}rank {rank.index} of {rank.world} on {rank.node_name}, {now}", flush=True)


def run_and_report(work: Callable[[], object], error_file: Path) -> int:
    """Call `work`; the exit status of what it did, its traceback in `error_file` and on stderr."""
    try:
        work()
    except Stopped as stopped:
        print(f"stopped: {stopped}", flush=True)
        return EXIT_STOPPED
    except (UserError, DataError) as error:
        _leave_words(error_file, f"{error}\n")
        return EXIT_USER
    except BaseException:  # whatever it is, it is written down and becomes the exit status
        _leave_words(error_file, traceback.format_exc())
        return EXIT_BUG
    return EXIT_DONE


def _leave_words(error_file: Path, text: str) -> None:
    error_file.parent.mkdir(parents=True, exist_ok=True)
    error_file.write_text(text, encoding="utf-8")
    print(text, file=sys.stderr, flush=True)


def end_with_parent(parent: int) -> None:
    """From now on the end of the parent, however it ends, reaches this process as TERM (Linux).

    Args:
        parent: its process id; if it has ended already, TERM comes at once.
    Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _forward_signals(processes: list[BaseProcess]) -> Iterator[None]:
    """While inside, stop signals to this process reach every rank, as TERM or USR2."""

    def forward(number: int, _frame: object) -> None:
        note_stop(number)  # a rank that is yet to be forked knows of it from its birth
        wanted = signal.SIGUSR2 if number == signal.SIGUSR2 else signal.SIGTERM
        for process in processes:
            if process.pid is not None and process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(process.pid, wanted)

    before = {name: signal.signal(name, forward) for name in wanted_signals()}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _supervise(processes: list[BaseProcess]) -> Outcome:
    """Wait; after the first failure give the others GRACE_SECONDS, then kill them."""
    first: Outcome | None = None
    deadline = float("inf")
    while any(process.is_alive() for process in processes):
        if first is None or first.status == EXIT_STOPPED:
            first = _first_failure(processes)
            if first is not None and first.status != EXIT_STOPPED:
                deadline = time.monotonic() + GRACE_SECONDS
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.01)
    for process in processes:
        process.join()
    if first is None or first.status == EXIT_STOPPED:
        first = _first_failure(processes)
    return first or Outcome(EXIT_DONE)


def _first_failure(processes: list[BaseProcess]) -> Outcome | None:
    """The failed rank, a real failure before one that merely stopped."""
    failed = [(i, p.exitcode) for i, p in enumerate(processes) if p.exitcode not in (None, 0)]
    failed.sort(key=lambda pair: pair[1] == EXIT_STOPPED)
    for index, status in failed:
        assert status is not None
        return Outcome(status, index)
    return None
