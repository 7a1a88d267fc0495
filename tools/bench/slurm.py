#!/usr/bin/env python3
"""Times of a job of thousands of array tasks: render, submit, status, cancel; calls of Slurm.

    . "$(slurm/devcluster/up)"
    tools/bench/slurm.py --tasks 5000 --at-once 100

The arrays are submitted on hold: no task runs, and all are cancelled at the end. Without a Slurm
only what needs none is measured. The stage is tests.stages.squares.
"""

import argparse
import contextlib
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from megatron_jobs.jobs.cluster import Cluster, load_cluster  # noqa: E402
from megatron_jobs.jobs.folder import write_job  # noqa: E402
from megatron_jobs.jobs.plan import Job, Plan, load_plan  # noqa: E402
from megatron_jobs.jobs.queue import call_slurm  # noqa: E402
from megatron_jobs.jobs.receipt import begin, finish, missing_tasks  # noqa: E402
from megatron_jobs.jobs.status import cancel_run, plan_status  # noqa: E402
from megatron_jobs.jobs.submit import submit_plan  # noqa: E402
from megatron_jobs.runtime.files import write_json  # noqa: E402

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo")
COUNTED = '#!/bin/bash\necho >>"{calls}"\nPATH=${{PATH#*:}} exec {name} "$@"\n'


def main() -> int:
    """Print one line for each thing that is measured."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--array-size", type=int, default=1001)
    parser.add_argument("--cluster", default="devcluster")
    parser.add_argument("--rounds", type=int, default=5)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    parser.add_argument("--place", default=memory, help="Where the run folder is made and removed.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.place) as place:
        folder = Path(place)
        cluster = load_cluster(asked.cluster)
        changes = {"max_array_size": asked.array_size, "sbatch": cluster.sbatch | {"hold": True}}
        bench(asked, folder, cluster.model_copy(update=changes))
    return 0


def bench(asked: argparse.Namespace, folder: Path, cluster: Cluster) -> None:
    """All measurements, in a folder of their own."""
    calls = count_calls(folder)
    plan = plan_of(asked, folder, "run")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        measure("load, render and --dry-run", calls, asked.rounds, lambda: dry_run(plan, cluster))
    text = printed.getvalue()
    sys.stdout.write(text[text.rindex("load, render") :])
    if shutil.which("sbatch") is None or call_slurm(["sinfo"]).returncode != 0:
        print("no Slurm here: nothing is submitted")
    else:
        measure("submit", calls, 1, lambda: submit_plan(plan, cluster, dry_run=False))
        measure("status, all waiting", calls, asked.rounds, lambda: plan_status(plan.run))
    job = plan.jobs["squares"]
    measure("begin and finish all tasks", calls, 1, lambda: pretend(job))
    measure("status, all done", calls, asked.rounds, lambda: plan_status(plan.run))
    measure("which tasks are missing", calls, asked.rounds, lambda: missing_tasks(job))
    if job.folder.slurm_ids():
        measure("cancel", calls, 1, lambda: cancel_run(plan.run, []))


def plan_of(asked: argparse.Namespace, folder: Path, run: str) -> Plan:
    """One job with tasks, and one after it."""
    resources = f"{{tasks: {asked.tasks}, tasks_at_once: {asked.at_once}}}"
    squares = f"squares: {{stage: tests.stages.squares, resources: {resources}}}"
    after = 'after: {stage: tests.stages.squares, reads: "@squares/squares.txt"}'
    path = folder / "plan.yaml"
    path.write_text(f"jobs:\n  {squares}\n  {after}\n", encoding="utf-8")
    return load_plan(str(path), [], folder / run)


def dry_run(plan: Plan, cluster: Cluster) -> None:
    """From the file to the last line printed."""
    loaded = load_plan(plan.shown, [], plan.run)
    submit_plan(loaded, cluster, dry_run=True)


def pretend(job: Job) -> None:
    """Leave what the tasks leave, without running them."""
    write_job(job.folder, job.description())
    for task in job.tasks():
        begin(task)
        task.folder.path.joinpath("squares.txt").write_text("0 0\n", encoding="utf-8")
        write_json(task.folder.numbers, {"squares": 1})
        finish(task)


def count_calls(folder: Path) -> Path:
    """A file that grows by a byte with each call of one of Slurm's commands, put before on PATH."""
    place, calls = folder / "counted", folder / "calls"
    place.mkdir()
    calls.touch()
    for name in COMMANDS:
        place.joinpath(name).write_text(COUNTED.format(calls=calls, name=name), encoding="utf-8")
        if shutil.which(name):
            place.joinpath(name).chmod(0o755)
    os.environ["PATH"] = f"{place}:{os.environ['PATH']}"
    return calls


def measure(what: str, calls: Path, rounds: int, work: Callable[[], Any]) -> None:
    """Run `work` some times; print its median and worst time, and the calls of one run."""
    before, times = calls.stat().st_size, []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    made = (calls.stat().st_size - before) // rounds
    spread = f", at most {max(times):.2f} s" if rounds > 1 else ""
    print(f"{what}: {statistics.median(times):.2f} s{spread}; {made} calls of Slurm", flush=True)


if __name__ == "__main__":
    sys.exit(main())
