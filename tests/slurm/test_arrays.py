"""Jobs cut into tasks, as arrays of a real Slurm (stage: tests.stages.squares)."""

import datetime
import os
import resource
import shlex
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.cli import main
from megatron_jobs.config.site import Preflight, Watch
from megatron_jobs.jobs.arrays import read_list
from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.events import read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.local import run_plan
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import cancel_run, plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import read_json, wait_for

HOSTILE = """a 'run' "of" $HOME `id` #1; ü\n--help\n"""
QUIET = {"preflight": Preflight(nodes=False, links=False)}
QUIET |= {"watch": Watch(stall_seconds=0, drain_seconds=0)}
COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo")
COUNTED = """#!/bin/bash
if [[ -z ${{SLURM_JOB_ID:-}} ]]; then echo {name} "$@" >>{calls}; fi # not those of batch scripts
PATH=${{PATH#*:}} exec {name} "$@"
"""


def plan_of(folder: Path, resources: dict[str, Any], run: str = "run", **settings: Any) -> Plan:
    """Squares, cut into tasks, and a job that waits for them."""
    squares = {"stage": "tests.stages.squares", "resources": resources} | settings
    after = {"stage": "tests.stages.squares", "reads": "@squares/squares.txt", "until": 1}
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": {"squares": squares, "after": after}}))
    return load_plan(str(path), [], folder / run)


def cluster_of_tests(**changes: Any) -> Cluster:
    return load_cluster("devcluster").model_copy(update=QUIET | changes)


def squares_of(plan: Plan) -> dict[str, Any]:
    return next(record for record in plan_status(plan.run) if record["job"] == "squares")


def wait_for_state(plan: Plan, job: str, *states: str) -> None:
    def reached() -> bool:
        return any(r["job"] == job and r["state"] in states for r in plan_status(plan.run))

    try:
        wait_for(reached, "a state", seconds=240, every=0.5)
    except Exception as error:
        raise AssertionError(f"{error}: {plan_status(plan.run)}") from error


def spans_of(ids: list[str]) -> list[tuple[str, float, float]]:
    """(task, begin, end) of each task that has ended, as sacct has them."""
    asked = ["--noheader", "--parsable2", "--allocations", "--format=JobID,Start,End"]
    command = ["sacct", *asked, f"--jobs={','.join(ids)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split("|") for line in done.stdout.splitlines()]
    ended = [line for line in lines if "_" in line[0] and "Unknown" not in line]
    return [(task, seconds(begin), seconds(end)) for task, begin, end in ended]


def seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def test_tasks_run_as_arrays_and_leave_what_a_local_run_leaves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """12 tasks in arrays of at most 5, 3 at once; one fails, and only that one runs again."""
    cure = tmp_path / "cure"
    settings = {"until": 50, "seconds": 1, "fails": 8, "cure": str(cure)}
    plan = plan_of(
        tmp_path, {"tasks": 12, "tasks_at_once": 3, "hours": 0.1}, run=HOSTILE, **settings
    )
    cluster = cluster_of_tests(max_array_size=5)
    submit_plan(plan, cluster, dry_run=False)
    job = plan.jobs["squares"]
    arrays = read_json(job.folder.slurm)["arrays"]
    assert [array["offset"] for array in arrays.values()] == [0, 5, 10]
    wait_for_state(plan, "squares", "failed")
    check_failure(plan, capsys)
    wait_for_state(plan, "after", "cancelled")
    check_throttle(list(arrays), tasks=12, at_once=3)
    check_logs(plan)

    cure.touch()
    submit_plan(plan, cluster, dry_run=False)
    again = read_json(job.folder.slurm)["arrays"]
    assert list(again.values()) == [{"offset": 8, "indexes": "0"}]
    wait_for_state(plan, "after", "done", "failed", "cancelled")
    near = plan_of(tmp_path, {"tasks": 12, "hours": 0.1}, run="near", **settings | {"seconds": 0})
    run_plan(near)
    check_equal(plan, near)
    for task in range(12):
        found = read_receipt(plan.jobs["squares"].folder.of_task(task))
        assert found is not None
        array = found["slurm_job_ids"][-1].partition("_")[0]
        assert array in (again if task == 8 else arrays)


def check_failure(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    """People are told of the one task that failed."""
    record = squares_of(plan)
    assert record["tasks"] == {"done": "0-7,9-11", "failed": "8"}
    assert record["reason"].startswith("task 8: rank 0")
    assert "fails: task 8 was told to" in record["reason"]
    capsys.readouterr()
    assert main(["status", str(plan.run)]) == 0
    assert "done 11, failed 1 (task 8)" in " ".join(capsys.readouterr().out.split())
    postmortem = Path(record["postmortem"]).read_text()
    assert postmortem.startswith("# squares, task 8: ")
    assert f"`mj resubmit {shlex.quote(str(plan.run))}`" in postmortem


def check_equal(plan: Plan, near: Plan) -> None:
    """What Slurm ran and what ran here is the same, as a whole and task by task."""
    for name in ("squares", "after"):
        there, here = (read_receipt(p.jobs[name].folder) for p in (plan, near))
        assert there is not None
        assert here is not None
        for part in ("key", "outputs", "numbers", "ranks"):
            assert there[part] == here[part], (name, part)
    for task in range(12):
        there, here = (read_receipt(p.jobs["squares"].folder.of_task(task)) for p in (plan, near))
        assert there is not None
        assert here is not None
        assert (there["key"], there["outputs"]) == (here["key"], here["outputs"])


def check_throttle(arrays: list[str], *, tasks: int, at_once: int) -> None:
    """Never more at once: at each begin, those that had begun and not ended are counted."""
    wait_for(lambda: len(spans_of(arrays)) == tasks, "the accounting", seconds=120, every=0.5)
    spans = spans_of(arrays)
    for _, moment, _ in spans:
        running = [task for task, begin, end in spans if begin <= moment < end]
        assert len(running) <= at_once, (moment, running, spans)


def check_logs(plan: Plan) -> None:
    """Each task's words are in its own folder, and `mj logs --task` finds them."""
    folder = plan.jobs["squares"].folder.of_task(7)
    assert folder.log(0).read_text() == "task 7 of 12, rank 0 of 1\n"
    assert main(["logs", str(plan.run), "squares", "--task", "7"]) == 0
    assert main(["logs", str(plan.run), "squares", "--task", "12"]) == 2
    assert {path.name for path in folder.path.iterdir()} <= {
        "logs", "watch", "started.json", "numbers.json", "squares.txt", "events.jsonl", "next"
    }  # fmt: skip


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which each call of Slurm's commands is noted, before it is made."""
    place, noted = tmp_path / "counted", tmp_path / "calls"
    place.mkdir()
    noted.touch()
    for name in COMMANDS:
        place.joinpath(name).write_text(COUNTED.format(name=name, calls=noted))
        place.joinpath(name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return noted


def counted(calls: Path) -> Counter[str]:
    """The calls since the last look."""
    found = Counter(line.split()[0] for line in calls.read_text().splitlines() if line)
    calls.write_text("")
    return found


def test_five_thousand_tasks(tmp_path: Path, calls: Path) -> None:
    """A few run; submit, status and cancel take few calls of Slurm, and seconds of processors:
    what passes besides is also the machine's."""
    resources = {"tasks": 5000, "tasks_at_once": 2, "hours": 0.1}
    plan = plan_of(tmp_path, resources, until=5000, seconds=600)
    before = seconds_used()
    submit_plan(plan, cluster_of_tests(max_array_size=1001), dry_run=False)
    submitted = seconds_used() - before
    job = plan.jobs["squares"]
    arrays = read_json(job.folder.slurm)["arrays"]
    assert [len(read_list(array["indexes"])) for array in arrays.values()] == [1001] * 4 + [996]
    # tests of array, gather and `after`; 5 arrays, gather and `after`
    assert counted(calls) == {"sbatch": 3 + 7}
    assert len(list(job.folder.path.joinpath("tasks").iterdir())) <= 5 + 2  # scripts, and groups
    begun = lambda: len(list(job.folder.path.glob("tasks/*-*/*/logs/rank-*.log")))  # noqa: E731
    wait_for(lambda: begun() == 2, "two tasks", seconds=180, every=0.3)
    counted(calls)
    before = seconds_used()
    record = squares_of(plan)
    asked = seconds_used() - before
    assert counted(calls) == {"squeue": 1, "sacct": 1}
    numbers = {state: len(read_list(text)) for state, text in record["tasks"].items()}
    assert (record["state"], numbers) == ("running", {"waiting": 4998, "running": 2})
    print(f"5000 tasks: submitted in {submitted:.1f} s, status in {asked:.2f} s")
    assert submitted < 20
    assert asked < 5
    check_requeue(plan, first=next(iter(arrays)))
    cancelled = cancel_run(plan.run, [])
    assert {slurm_id for name, slurm_id in cancelled if name == "squares"} >= set(arrays)
    wait_for_state(plan, "squares", "cancelled")
    assert set(squares_of(plan)["tasks"]) == {"cancelled"}


def seconds_used() -> float:
    """Of processors, by this process and the commands that it has called."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def check_requeue(plan: Plan, *, first: str) -> None:
    """A task that is warned stops, and it alone goes back in the queue; the next gets its place."""
    task, other = (plan.jobs["squares"].folder.of_task(number) for number in (0, 1001))
    stop(task, f"{first}_0")
    wait_for(lambda: "again" in events_of(task), "a requeue", seconds=120, every=0.2)
    wait_for(lambda: "0" in states_of(plan)["waiting"].split(",")[0], "its wait", seconds=120)
    assert events_of(task) == ["start", "stopped", "again"]
    assert events_of(other) == ["start"]
    assert "1001" in states_of(plan)["running"].split(",")


def stop(folder: JobFolder, slurm_id: str) -> None:
    """Warn a task until it has stopped. scancel sends a signal at once; where other tasks of the
    array wait it then tries again and again, for it takes them for being in transition (22.05).
    """

    def stopped() -> bool:
        if "stopped" in events_of(folder):
            return True
        warn = ["timeout", "3", "scancel", "--signal=USR2", slurm_id]
        subprocess.run(warn, check=False, capture_output=True)
        return False

    wait_for(stopped, f"the end of {slurm_id}", seconds=120, every=2)


def events_of(folder: JobFolder) -> list[str]:
    return [event["event"] for event in read_events(folder)]


def states_of(plan: Plan) -> dict[str, str]:
    found: dict[str, str] = squares_of(plan)["tasks"]
    return found


def test_tasks_go_on_where_nodes_cannot_requeue_them(tmp_path: Path) -> None:
    """Under a new id, or in the array behind: the gather waits for them either way.

    Where it is there before the second start has ended: that start is held until then.
    """
    hold = tmp_path / "hold"
    hold.touch()
    plans: list[Plan] = []
    for again in ("submit", "ahead"):
        tmp_path.joinpath(again).mkdir()
        plan = plan_of(
            tmp_path / again, {"tasks": 2, "hours": 0.1}, until=7, lingers=1, hold=str(hold)
        )
        cluster = cluster_of_tests(again=again, successors=1)
        submit_plan(plan, cluster, dry_run=False)
        plans.append(plan)
    for plan in plans:
        task = plan.jobs["squares"].folder.of_task(1)
        wait_for(lambda: bool(task.rank_logs()), "task 1", seconds=180)  # noqa: B023
        wait_for(lambda: bool(task.rank_logs()[0].read_text()), "its words", seconds=180)  # noqa: B023
        stop(task, read_json(task.started)["starts"][0]["slurm_job_id"])
    gather = plans[0].jobs["squares"].folder
    wait_for(lambda: "behind" in events_of(gather), "the gather", seconds=180, every=0.2)
    hold.unlink()
    for plan, again in zip(plans, ("submit", "ahead"), strict=True):
        wait_for_state(plan, "after", "done", "failed", "cancelled")
        job = plan.jobs["squares"]
        assert job.folder.path.joinpath("squares.txt").read_text().split("\n")[6] == "6 36"
        assert [len(starts_of(job.folder.of_task(task))) for task in range(2)] == [1, 2]
        first, second = starts_of(job.folder.of_task(1))
        assert first.partition("_")[0] != second.partition("_")[0]
        assert events_of(job.folder).count("behind") == (1 if again == "submit" else 0)


def starts_of(folder: JobFolder) -> list[str]:
    return [start["slurm_job_id"] for start in read_json(folder.started)["starts"]]
