"""Where ranks come in: `python -m megatron_jobs.enter [--fork|--begin|--finish] RUN/JOB`.

Without a flag this process is one rank (started by srun). --fork starts all ranks of the job here.
--begin and --finish are what a batch script does before and after its ranks: make the folder ready
(exit status 3: the receipt holds, nothing to do), and write the receipt.
"""

import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

from megatron_jobs.errors import EXIT_BUG, EXIT_DONE, EXIT_STOPPED, EXIT_USER, DataError, UserError
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.plan import Job, load_job
from megatron_jobs.jobs.receipt import begin, finish
from megatron_jobs.runtime.files import write_json
from megatron_jobs.runtime.launch import end_with_parent, fork_ranks, run_and_report
from megatron_jobs.runtime.rank import Rank, read_rank
from megatron_jobs.runtime.stop import heed_stop, install_stop_signals

EXIT_NOTHING_TO_DO = 3
USAGE = "usage: python -m megatron_jobs.enter [--fork|--begin|--finish] RUN/JOB"


def main(words: list[str]) -> int:
    """Exit status of the step asked for; see `megatron_jobs.errors`."""
    install_stop_signals(deferred=True)  # a signal that comes while we start is not lost
    flags = [word for word in words if word.startswith("--")]
    folders = [word for word in words if not word.startswith("--")]
    if len(folders) != 1 or len(flags) > 1 or not set(flags) <= set(STEPS):
        print(USAGE, file=sys.stderr)
        return EXIT_USER
    folder = JobFolder(Path(folders[0]).absolute())
    try:
        return STEPS[flags[0]](folder) if flags else enter_rank(folder)
    except (UserError, DataError) as error:
        print(error, file=sys.stderr)
        return EXIT_USER


def enter_rank(folder: JobFolder) -> int:
    """Be one rank of the job, as srun's variables say."""
    rank = read_rank()
    job = load_job(folder)
    error_file = folder.error(rank.index)
    error_file.unlink(missing_ok=True)
    status = run_and_report(lambda: run_stage(job, rank), error_file)
    if status == EXIT_STOPPED:  # told by a file: at a status above 0 srun would end the ranks
        folder.stopped.touch()  # that are still saving
        return EXIT_DONE
    return status


def run_stage(job: Job, rank: Rank) -> None:
    """Do this rank's part of the job; the leader notes the stage's numbers."""
    heed_stop()
    numbers = job.stage.run(job.config, rank, job.folder.path)
    if rank.leads:
        write_json(job.folder.numbers, numbers)


def fork_all(folder: JobFolder) -> int:
    """Start every rank of the job on this machine, and wait."""
    end_with_parent(os.getppid())
    job = load_job(folder)
    for module in getattr(job.stage, "PRELOAD", ()):
        importlib.import_module(module)  # once, here: the forked ranks share it
    outcome = fork_ranks(
        lambda rank: run_stage(job, rank),
        job.resources.world,
        error_file=folder.error,
        output_file=folder.log,
    )
    record = {"status": outcome.status, "guilty": outcome.guilty, "signal": outcome.signal}
    write_json(folder.outcome, record)
    return outcome.status if outcome.status >= 0 else EXIT_BUG


def begin_job(folder: JobFolder) -> int:
    """Exit status 0: the ranks may start; EXIT_NOTHING_TO_DO: the receipt holds."""
    return EXIT_DONE if begin(load_job(folder)) else EXIT_NOTHING_TO_DO


def finish_job(folder: JobFolder) -> int:
    """Write the receipt; EXIT_STOPPED when a rank stopped in time and the job is to go on."""
    if folder.stopped.exists():
        return EXIT_STOPPED
    finish(load_job(folder))
    return EXIT_DONE


STEPS = {"--fork": fork_all, "--begin": begin_job, "--finish": finish_job}


def leave(status: int) -> NoReturn:
    """End now: on the interpreter's own way out, threads of torch that still run abort it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
