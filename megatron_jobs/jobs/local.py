"""Running a job, or a plan, on this machine with local processes."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
from megatron_jobs.jobs.folder import JobFolder, write_job
from megatron_jobs.jobs.lock import held_alone, make_run_folder
from megatron_jobs.jobs.plan import Job, Plan
from megatron_jobs.jobs.receipt import begin, finish, is_done, missing_tasks, read_receipt
from megatron_jobs.jobs.triage import judge, write_postmortem
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
        _refuse_killed(job)
        if job.gathers and not is_done(job):
            _run_tasks(job, watch, lock)
        if not begin(job):  # a signal ends it at once: a kill does no harm here
            watch(job, "skipped", read_receipt(job.folder))
            return
        _run_begun(job, watch, lock)


def _refuse_killed(job: Job) -> None:
    """UserError while the switch KILL is there, unless nothing is to do any more."""
    if job.folder.kill_switch.exists() and not job.folder.receipt.exists():
        raise UserError(f"{job.name}: {_killed(job)}")


def _killed(job: Job) -> str:
    return f"{job.folder.kill_switch} is there; remove it, and run it again to go on"


def _run_tasks(job: Job, watch: Watch, lock: int) -> None:
    """Run the tasks whose receipts do not hold, as many at a time as there is room for.

    One that fails does not keep the others from running, as under Slurm.
    """
    write_job(job.folder, job.description())
    (job.folder.logs / "launch.log").touch()  # it is run here, whatever Slurm knows
    missing = missing_tasks(job)
    with _noted_signals() as noted, ThreadPoolExecutor(_room_for(job)) as pool:
        running = [pool.submit(_run_task, job.of_task(n), noted, lock) for n in missing]
        try:
            _watch_tasks(job, running, watch)
        except BaseException:  # nobody would watch over them any more
            noted.append(signal.SIGTERM)
            raise
    statuses = dict(zip(missing, (future.result() for future in running), strict=True))
    failed = [n for n, status in statuses.items() if status not in (EXIT_DONE, EXIT_STOPPED)]
    if failed:
        first = _failure(job.of_task(failed[0]), statuses[failed[0]])
        more = f"\n{len(failed)} of {job.resources.tasks} tasks failed" if failed[1:] else ""
        raise type(first)(f"{first}{more}")
    if noted or EXIT_STOPPED in statuses.values():
        raise Stopped(f"{job.name}: stopped and saved; run it again to go on")


def _room_for(job: Job) -> int:
    """How many tasks run at a time on this machine."""
    asked = job.resources
    room = max(1, len(os.sched_getaffinity(0)) // (asked.world * asked.cpus))
    return min(room, asked.tasks_at_once or room)


def _run_task(task: Job, noted: list[int], lock: int) -> int:
    """Exit status of a task; it does not start any more when the run was asked to stop."""
    if noted:
        return EXIT_STOPPED
    if not begin(task):
        return EXIT_DONE
    status = _start(task, quietly, lock, noted)
    if status == EXIT_DONE:
        finish(task)
    return status


def _watch_tasks(job: Job, running: "list[Future[int]]", watch: Watch) -> None:
    """Wait for all tasks, and tell how many are over."""
    total, left, began = job.resources.tasks, set(running), time.monotonic()
    while left:
        left = wait(left, timeout=0.1).not_done
        done = total - len(left)
        pace = (len(running) - len(left)) / (time.monotonic() - began)
        record: dict[str, Any] = {"done": done, "total": total, "unit": "tasks", "numbers": {}}
        seconds_left = len(left) / pace if pace else None
        watch(job, "running", record | {"seconds_left": seconds_left, "time": time.time()})


def _run_begun(job: Job, watch: Watch, lock: int) -> None:
    with _noted_signals() as noted:
        status = _start(job, watch, lock, noted)
        if status not in (EXIT_DONE, EXIT_STOPPED):
            write_postmortem(job.folder, judge(job.folder, status=status))
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
        return _wait(child, job, noted, watch)
    except BaseException:  # nobody would watch over it any more
        child.terminate()
        child.wait()
        raise


def _wait(child: "subprocess.Popen[bytes]", job: Job, noted: list[int], watch: Watch) -> int:
    """The exit status of a process; signals that come to be noted are passed on to it.

    The switch KILL is one more: most stages look for signals alone.
    """
    told, killed, status = 0, False, None
    while status is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = child.wait(timeout=0.1)
        new = noted[told:]
        told += len(new)
        if not killed and job.folder.kill_switch.exists():
            killed = True
            new.append(signal.SIGTERM)
        for number in new:
            child.send_signal(number)
        watch(job, "running", read_progress(job.folder.path))
    return status


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
        how = _killed(job) if job.folder.kill_switch.exists() else "run it again to go on"
        return Stopped(f"{job.name}: stopped and saved; {how}")
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
