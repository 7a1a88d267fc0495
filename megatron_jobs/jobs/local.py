"""Running a job, or a plan, on this machine with local processes."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from megatron_jobs.errors import (
    EXIT_DONE,
    EXIT_STOPPED,
    EXIT_USER,
    MegatronJobsError,
    Stopped,
    UserError,
)
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.lock import held_alone, make_run_folder
from megatron_jobs.jobs.plan import Job, Plan
from megatron_jobs.jobs.receipt import begin, finish, read_receipt
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.progress import read_progress
from megatron_jobs.runtime.stop import wanted_signals

Watch = Callable[[Job, str, dict[str, Any] | None], None]
"""Called with the job, one of skipped, running, done, and its progress or receipt."""


class JobFailed(MegatronJobsError):
    """A job's ranks ended badly; the message holds the first one's last words."""


def quietly(job: Job, state: str, record: dict[str, Any] | None) -> None:
    """A `Watch` that looks away."""


def run_plan(plan: Plan, watch: Watch = quietly) -> None:
    """Run each job whose receipt does not hold, in order; stop at the first that fails."""
    make_run_folder(plan.run)
    for job in plan.jobs.values():
        run_job(job, watch)


def run_job(job: Job, watch: Watch = quietly) -> None:
    """Run one job in processes of its own and leave its receipt.

    Raises: UserError (the user can mend it), Stopped (asked to stop; state is saved), JobFailed.
    """
    with held_alone(job) as lock:
        if not begin(job):  # a signal ends it at once: a kill does no harm here
            watch(job, "skipped", read_receipt(job.folder))
            return
        _run_begun(job, watch, lock)


def _run_begun(job: Job, watch: Watch, lock: int) -> None:
    with _noted_signals() as noted:
        status = _start(job, watch, lock, noted)
        if status != EXIT_DONE:
            raise _failure(job, status)
        watch(job, "done", finish(job))
        if noted:  # it was done before it could stop; what comes after it is not begun
            raise Stopped(f"{job.name}: done; asked to stop before the next job")


def _start(job: Job, watch: Watch, lock: int, noted: list[int]) -> int:
    """The exit status of the process that holds all ranks; signals that are noted reach it."""
    command = [sys.executable, "-P", "-m", "megatron_jobs.enter", "--fork", str(job.folder.path)]
    environment = os.environ | {"OMP_NUM_THREADS": str(job.resources.cpus)}
    with job.folder.logs.joinpath("launch.log").open("ab") as log:
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log, pass_fds=(lock,))
    try:
        return _wait(child, noted, lambda: watch(job, "running", read_progress(job.folder.path)))
    except BaseException:  # nobody would watch over it any more
        child.terminate()
        child.wait()
        raise


def _wait(child: "subprocess.Popen[bytes]", noted: list[int], watch: Callable[[], None]) -> int:
    """The exit status of a process; signals that come to be noted are passed on to it."""
    told = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = child.wait(timeout=0.1)
            watch()
            return status
        new = noted[told:]
        told += len(new)
        for number in new:
            child.send_signal(number)
        watch()


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """While inside, stop signals to this process are only noted, in the list."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted  # Python lets only the main thread handle signals
        return
    names = wanted_signals()
    before = {name: signal.signal(name, lambda number, _: noted.append(number)) for name in names}
    try:
        yield noted
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _failure(job: Job, status: int) -> MegatronJobsError:
    """The error to raise for a job whose ranks did not all end well."""
    outcome = read_json(job.folder.outcome) if job.folder.outcome.exists() else {}
    guilty, killer = outcome.get("guilty", -1), outcome.get("signal", "")
    words = last_words(job.folder, guilty)
    if status == EXIT_STOPPED:
        return Stopped(f"{job.name}: stopped and saved; run it again to go on")
    if status == EXIT_USER and words:
        return UserError(f"{job.name}: {words}")
    if guilty < 0:
        words = _tail(job.folder.logs / "launch.log")
        return JobFailed(f"{job.name}: could not start\n{words}")
    how = f"was killed by {killer}" if killer else f"ended with status {status}"
    where = job.folder.log(guilty)
    return JobFailed(f"{job.name}: rank {guilty} {how}; its log: {where}\n{words or _tail(where)}")


def last_words(folder: JobFolder, rank: int) -> str:
    """The error message or traceback that a rank left, or nothing."""
    if rank < 0 or not folder.error(rank).exists():
        return ""
    return folder.error(rank).read_text(encoding="utf-8").strip()


def _tail(path: Path, lines: int = 20) -> str:
    if not path.exists():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
