"""One run at a time in a job's folder: a lock that ends with the processes that hold it."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.plan import Job
from megatron_jobs.jobs.queue import live_states


@contextlib.contextmanager
def held_alone(job: Job) -> Iterator[int]:
    """Hold the job's folder; gives a file descriptor, for child processes to hold it as well.

    Raises: UserError naming who holds it: another run on this machine, or a Slurm job.
    """
    _refuse_while_on_slurm(job)
    try:
        job.folder.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(job.folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{job.folder.path}: cannot be written: {error.strerror}") from error
    try:
        if not _take_patiently(handle):
            holder = job.folder.lock.read_text(encoding="utf-8") or "another process"
            raise UserError(f"{job.name}: runs already: {holder}; wait for it, or stop it")
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {os.uname().nodename}".encode())
        yield handle
    finally:
        os.close(handle)


def is_held(folder: JobFolder) -> bool:
    """Whether a run of this machine, or one that shares its file locks, is at work there."""
    try:
        handle = os.open(folder.lock, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _take(handle, fcntl.LOCK_SH)
    except UserError:
        return False
    finally:
        os.close(handle)


@contextlib.contextmanager
def submitting(run: Path) -> Iterator[None]:
    """Hold a run folder while its jobs are submitted; UserError when somebody else does."""
    handle = os.open(run / ".submit", os.O_RDWR | os.O_CREAT, 0o664)
    try:
        if not _take(handle, fcntl.LOCK_EX):
            raise UserError(f"{run}: is being submitted by somebody else at this moment")
        yield
    finally:
        os.close(handle)


def make_run_folder(run: Path) -> None:
    """Make sure that the run folder is there and can be written to; UserError when it cannot."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run}: cannot be made: {error.strerror}; choose another --run") from error
    if not os.access(run, os.W_OK | os.X_OK):
        raise UserError(f"{run}: cannot be written to; choose another --run")


def _take_patiently(handle: int) -> bool:
    """Take the lock; one who only asks whether it is held lets go in a moment."""
    end = time.monotonic() + 1
    while not _take(handle, fcntl.LOCK_EX):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _take(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        cure = "mount it with file locks (Lustre: -o flock), or choose another --run"
        raise UserError(f"the run folder's file system has no locks: {error}; {cure}") from error
    return True


def _refuse_while_on_slurm(job: Job) -> None:
    try:
        living = live_states(job.folder.slurm_ids())
    except UserError:  # no Slurm here: it cannot be asked
        return
    if living:
        cure = f"wait for it, or: mj cancel {job.run}"
        raise UserError(f"{job.name}: is Slurm job {next(iter(living))}; {cure}")
