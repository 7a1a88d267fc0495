"""Where ranks come in: `python -m megatron_jobs.enter [--STEP[=VALUE]] RUN/JOB`.

Without a flag this process is one rank (started by srun). All steps but --fork serve batch.sh:

--fork           start all ranks of the job on this machine
--begin          make the folder ready; exit status 3: the receipt holds, 4: RUN/JOB/next is written
--pairs=SECONDS  one process a node: try its links to two others
--fit=NODES      judge the nodes; prints those to leave out; exit status 5: too few are good
--finish         write the receipt, after the ranks have ended well
--after=STATUS   judge how it ended, and write RUN/JOB/next
--drain=NODES    note that nodes of the job are being drained
--successor=ID   note the Slurm job that goes on in place of this one
--stuck          note that none could be submitted
--watch          look after the ranks of this node until told to end
"""

import contextlib
import importlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import psutil

from megatron_jobs.errors import (
    EXIT_BUG,
    EXIT_DECIDED,
    EXIT_DONE,
    EXIT_NOTHING_TO_DO,
    EXIT_STOPPED,
    EXIT_USER,
    DataError,
    UserError,
)
from megatron_jobs.jobs.after import (
    is_superseded,
    note_stuck,
    note_successor,
    settle,
    settle_before,
)
from megatron_jobs.jobs.again import headway, note_start
from megatron_jobs.jobs.events import note
from megatron_jobs.jobs.folder import JobFolder, read_job
from megatron_jobs.jobs.plan import Job, load_job
from megatron_jobs.jobs.preflight import PAIRS, fit
from megatron_jobs.jobs.receipt import begin, finish
from megatron_jobs.jobs.snapshot import compile_snapshot
from megatron_jobs.jobs.stacks import heartbeats_of, scratch_of
from megatron_jobs.jobs.starts import node_names
from megatron_jobs.jobs.tasks import require_tasks
from megatron_jobs.jobs.watch import watch
from megatron_jobs.runtime.files import remove, write_json
from megatron_jobs.runtime.heartbeat import open_heartbeat, record_collectives, remove_leftovers
from megatron_jobs.runtime.launch import end_with_parent, fork_ranks, mark_start, run_and_report
from megatron_jobs.runtime.rank import Rank, read_rank, slurm_nodes
from megatron_jobs.runtime.stop import heed_stop, install_stop_signals

USAGE = "usage: python -m megatron_jobs.enter [--STEP[=VALUE]] RUN/JOB"


def main(words: list[str]) -> int:
    """Exit status of the step asked for; see `megatron_jobs.errors`."""
    install_stop_signals(deferred=True)  # a signal that comes while we start is not lost
    flags = [word for word in words if word.startswith("--")]
    folders = [word for word in words if not word.startswith("--")]
    step, _, value = "".join(flags).partition("=")
    if len(folders) != 1 or len(flags) > 1 or (step and step not in STEPS):
        print(USAGE, file=sys.stderr)
        return EXIT_USER
    folder = JobFolder(Path(folders[0]).absolute())
    try:
        return STEPS[step](folder, value) if step else enter_rank(folder)
    except (UserError, DataError) as error:
        print(error, file=sys.stderr)
        return EXIT_USER


def enter_rank(folder: JobFolder) -> int:
    """Be one rank of the job, as srun's variables say."""
    rank = read_rank()
    mark_start(rank)
    job = load_job(folder)
    status = run_and_report(lambda: run_stage(job, rank), folder.error(rank.index))
    if status == EXIT_STOPPED:  # told by a file: at a status above 0 srun would end the ranks
        if not folder.stopped.exists():  # that are still saving; 16,000 need not write it
            folder.stopped.touch()
        return EXIT_DONE
    return status


def run_stage(job: Job, rank: Rank) -> None:
    """Do this rank's part of the job; the leader notes the stage's numbers."""
    with open_heartbeat(rank, heartbeats_of(job.folder, rank)) as place:
        if job.resources.gpus:
            record_collectives(place)
        heed_stop()
        numbers = _work(job, rank)
    if rank.leads:
        write_json(job.folder.numbers, numbers)


def _work(job: Job, rank: Rank) -> dict[str, float]:
    """A rank's part of a job or task; of a job that is cut into tasks, to join what they left."""
    if not job.gathers:
        place = replace(rank, task=job.task or 0, tasks=job.resources.tasks)
        return job.stage.run(job.config, place, job.folder.path)
    if not rank.leads:
        return {}
    assert hasattr(job.stage, "gather"), f"stage {job.stage_name} cannot be cut into tasks"
    tasks = [task.folder.path for task in job.tasks()]
    numbers: dict[str, float] = job.stage.gather(job.config, job.folder.path, tasks)
    return numbers


def fork_all(folder: JobFolder, _: str) -> int:
    """Start every rank of the job on this machine, and wait."""
    end_with_parent(os.getppid())
    job = load_job(folder)
    remove_leftovers(host=os.uname().nodename, scratch=scratch_of(folder))
    for module in getattr(job.stage, "PRELOAD", ()):
        importlib.import_module(module)  # once, here: the forked ranks share it
    attempt = f"{os.getpid()}.{time.monotonic_ns()}"
    outcome = fork_ranks(
        lambda rank: run_stage(job, rank),
        job.asked.world,
        attempt=attempt,
        error_file=folder.error,
        output_file=folder.log,
    )
    here = Rank(host=os.uname().nodename, attempt=attempt)
    remove(heartbeats_of(job.folder, here))  # what ranks that were killed have left
    record = {"status": outcome.status, "guilty": outcome.guilty, "signal": outcome.signal}
    write_json(folder.outcome, record)
    return outcome.status if outcome.status >= 0 else EXIT_BUG


def begin_job(folder: JobFolder, _: str) -> int:
    """EXIT_DONE: the ranks may start; EXIT_NOTHING_TO_DO, EXIT_DECIDED: they must not."""
    job = load_job(folder)
    if settle_before(job):
        return EXIT_DECIDED
    reached = headway(folder)
    if not begin(job):
        return EXIT_NOTHING_TO_DO
    compile_snapshot()
    if job.gathers:
        require_tasks(job)
    note_start(folder, reached=reached, nodes=node_names(slurm_nodes()))
    return EXIT_DONE


def try_links(folder: JobFolder, seconds: str) -> int:
    """Try this node with others; done `seconds` after this process has begun."""
    from megatron_jobs.parallel.pairs import try_pairs  # torch, which no other step needs

    names = node_names(slurm_nodes())
    gpus = read_job(folder)["resources"]["gpus"]
    gone = time.time() - psutil.Process().create_time()
    place, limit = folder.preflight / PAIRS, float(seconds)
    try_pairs(read_rank(), names, place, seconds=limit, gpus=gpus, gone=gone)
    return EXIT_DONE


def choose_nodes(folder: JobFolder, wanted: str) -> int:
    """Choose the nodes that the ranks start on."""
    return fit(folder, int(wanted))


def finish_job(folder: JobFolder, _: str) -> int:
    """Write the receipt; EXIT_STOPPED when a rank stopped in time and the job is to go on."""
    if is_superseded(folder) or folder.stopped.exists():
        return EXIT_STOPPED
    finish(load_job(folder))
    return EXIT_DONE


def settle_job(folder: JobFolder, status: str) -> int:
    """Decide what the batch script does next; EXIT_NOTHING_TO_DO when that is not its to do."""
    return EXIT_DONE if settle(folder, int(status)) else EXIT_NOTHING_TO_DO


def note_drain(folder: JobFolder, nodes: str) -> int:
    """Note why the ranks are told to stop."""
    note(folder, "drain", nodes=nodes.split(","))
    return EXIT_DONE


def take_over(folder: JobFolder, slurm_id: str) -> int:
    """Note the job's new id."""
    note_successor(folder, slurm_id)
    return EXIT_DONE


def give_up(folder: JobFolder, _: str) -> int:
    """Note that it cannot go on."""
    note_stuck(folder)
    return EXIT_DONE


def watch_node(folder: JobFolder, _: str) -> int:
    """Look after the ranks of this node."""
    watch(load_job(folder).folder)
    return EXIT_DONE


STEPS = {
    "--fork": fork_all,
    "--begin": begin_job,
    "--pairs": try_links,
    "--fit": choose_nodes,
    "--finish": finish_job,
    "--after": settle_job,
    "--drain": note_drain,
    "--successor": take_over,
    "--stuck": give_up,
    "--watch": watch_node,
}


def leave(status: int) -> NoReturn:
    """End now: on the interpreter's own way out, threads of torch that still run abort it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
