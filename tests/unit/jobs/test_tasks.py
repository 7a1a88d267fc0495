"""Jobs cut into tasks: lists, arrays, receipts and the local run (stage: tests.stages.squares)."""

import re
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.errors import EXIT_STOPPED, ConfigError, DataError, UserError
from megatron_jobs.jobs import receipt as receipts
from megatron_jobs.jobs.chains import work_of
from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.executor import JobExecutor, Submission
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.local import run_plan
from megatron_jobs.jobs.plan import Job, Plan, load_job, load_plan
from megatron_jobs.jobs.queue import SlurmState
from megatron_jobs.jobs.receipt import begin, is_done, job_key, missing_tasks, read_receipt
from megatron_jobs.jobs.status import failed_jobs, plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.jobs.tasks import (
    in_words,
    overall,
    require_tasks,
    task_states,
)
from megatron_jobs.runtime.files import read_json, wait_for, write_json

ROOT = Path(__file__).parents[3]
HOSTILE = """a 'run' "of" $HOME `id` #1; ü\n--help\n"""
PLAN = """
stage: tests.stages.squares
until: 23
resources: {tasks: 5}
"""


@pytest.fixture(autouse=True)
def _tests_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def plan_of(tmp_path: Path, *words: str) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return load_plan(str(path), list(words), tmp_path / "run")


def job_of(tmp_path: Path, *words: str) -> Job:
    return plan_of(tmp_path, *words).jobs["squares"]


def pretend(job: Job, task: int) -> None:
    """Leave what a finished task leaves."""
    part = job.of_task(task)
    assert begin(part)
    part.folder.path.joinpath("squares.txt").write_text(f"{task} {task * task}\n")
    write_json(part.folder.numbers, {"squares": 1})
    receipts.finish(part)


def starts_of(job: Job) -> list[int]:
    return [len((read_receipt(task.folder) or {})["slurm_job_ids"]) for task in job.tasks()]


def test_a_stage_without_gather_is_not_cut(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("stage: tests.stages.echo\nresources: {tasks: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load_plan(str(path), [])
    rule = "stage tests.stages.echo cannot be cut into tasks: it has no `gather`"
    assert dict(caught.value.problems) == {
        "echo.resources.tasks": f"2, but {rule}; leave it at 1",
    }


def test_folders_of_tasks() -> None:
    folder = JobFolder(Path("/runs/tasks/0-999"))
    assert folder.task is None
    task = folder.of_task(4321)
    assert task.path == Path("/runs/tasks/0-999/tasks/4000-4999/4321")
    assert (task.task, task.whole) == (4321, folder.path)
    assert task.config == folder.config
    assert task.receipt == Path("/runs/tasks/0-999/tasks/4000-4999/receipts/4321.json")
    assert JobFolder(Path("/runs/tasks/0-999/1000")).task is None


def test_a_local_run_is_the_whole_run(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    run_plan(plan)
    job = plan.jobs["squares"]
    there = job.folder.path.joinpath("squares.txt").read_text()
    assert there == "".join(f"{n} {n**2}\n" for n in range(23))
    receipt = read_receipt(job.folder)
    assert receipt is not None
    assert receipt["numbers"] == {"squares": 23, "tasks": 5}
    assert (receipt["tasks"], receipt["starts"]) == (5, 6)
    parts = [read_receipt(task.folder) for task in job.tasks()]
    assert [part["numbers"]["squares"] for part in parts if part] == [5, 5, 5, 4, 4]
    hours = sum(part["cpu_hours"] for part in parts if part)
    assert receipt["cpu_hours"] > hours > 0
    seen: list[str] = []
    run_plan(plan_of(tmp_path), lambda job, state, record: seen.append(state))
    assert seen == ["skipped"]


def test_only_the_task_that_failed_runs_again(tmp_path: Path) -> None:
    cure = tmp_path / "cure"
    words = ["fails=3", f"cure={cure}"]
    with pytest.raises(UserError) as caught:
        run_plan(plan_of(tmp_path, *words))
    assert str(caught.value) == "squares, task 3: fails: task 3 was told to"
    job = job_of(tmp_path, *words)
    record = plan_status(job.run)[0]
    assert (record["state"], record["tasks"]) == ("failed", {"done": "0-2,4", "failed": "3"})
    assert record["reason"].startswith("task 3: rank 0: fails: task 3 was told to; see ")
    assert [folder.task for folder in failed_jobs(job.run)] == [3]
    assert missing_tasks(job) == [3]
    with pytest.raises(DataError, match=re.escape("squares: task 3 left no receipt that holds")):
        require_tasks(job)
    ended = {n: job.folder.of_task(n).receipt.stat().st_mtime_ns for n in (0, 1, 2, 4)}
    cure.touch()
    run_plan(plan_of(tmp_path, *words))
    assert ended == {n: job.folder.of_task(n).receipt.stat().st_mtime_ns for n in ended}
    assert is_done(job)


def test_a_local_run_that_is_stopped_goes_on(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "seconds=60")
    command = [sys.executable, "-m", "megatron_jobs.cli", "run", plan.shown, "seconds=60"]
    words = ["resources.tasks_at_once=1", "--run", str(plan.run)]
    log = plan.jobs["squares"].folder.of_task(0).log(0)
    with subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL) as running:
        try:
            wait_for(lambda: log.exists() and bool(log.read_text()), "task 0", seconds=30)
            found = plan_status(plan.run)[0]
            assert (found["state"], found["tasks"]) == (
                "running",
                {"waiting": "1-4", "running": "0"},
            )
        finally:
            running.send_signal(signal.SIGINT)
    assert running.returncode == EXIT_STOPPED
    found = plan_status(plan.run)[0]
    assert (found["state"], found["reason"]) == ("stopped", "run it again to go on")
    assert found["tasks"] == {"waiting": "1-4", "stopped": "0"}
    run_plan(plan_of(tmp_path, "seconds=0"))
    receipt = read_receipt(plan.jobs["squares"].folder.of_task(0))
    assert receipt is not None
    assert receipt["starts"] == 2


def test_the_number_of_tasks_is_part_of_the_key(tmp_path: Path) -> None:
    five, six = job_of(tmp_path), job_of(tmp_path, "resources.tasks=6")
    keys = {job_key(five, {}), job_key(six, {}), job_key(five.of_task(0), {})}
    keys.add(job_key(five.of_task(1), {}))
    assert len(keys) == 4
    pretend(five, 2)
    assert missing_tasks(five) == [0, 1, 3, 4]
    assert missing_tasks(six) == [0, 1, 2, 3, 4, 5]


def test_outdated_work_of_a_task_is_moved_aside(tmp_path: Path) -> None:
    pretend(job_of(tmp_path), 2)
    other = job_of(tmp_path, "until=9")
    assert begin(other.of_task(2))
    aside = list((tmp_path / "run/.replaced/squares/tasks/0-999").iterdir())
    assert len(aside) == 1
    assert {p.name for p in aside[0].iterdir()} >= {"receipt.json", "squares.txt", "started.json"}
    assert read_receipt(other.of_task(2).folder) is None


def test_a_job_that_begins_anew_leaves_its_tasks_alone(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    pretend(job, 0)
    job.folder.path.joinpath("squares.txt").touch()
    write_json(job.folder.started, {"key": "another"})
    assert begin(job)
    assert missing_tasks(job) == [1, 2, 3, 4]
    assert not job.folder.path.joinpath("squares.txt").exists()


def test_inputs_are_read_once_for_all_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word = tmp_path / "word"
    word.write_text("!")
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return path.read_text().encode().hex()

    monkeypatch.setattr(receipts, "tree_hash", counted)
    job = job_of(tmp_path, f"reads={word}")
    for number in range(3):
        receipts._hash_once.cache_clear()  # each task is a process of its own
        assert begin(job.of_task(number))
    assert read == [word]
    assert read_json(job.folder.of_task(2).started)["inputs"] == {"reads": "21"}
    time.sleep(0.02)
    word.write_text("?")
    assert begin(job.of_task(2))
    assert read_json(job.folder.of_task(2).started)["inputs"] == {"reads": "3f"}


def test_a_task_is_loaded_from_its_folder(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    begin(job)
    task = load_job(JobFolder(job.folder.of_task(4).path))
    assert (task.task, task.run, task.resources) == (4, job.run, job.resources)
    assert task.config == job.config
    assert (task.gathers, job.gathers) == (False, True)
    assert job.asked.hours == 0.05
    assert task.asked == job.resources


def states_of(tmp_path: Path, slurm: dict[str, str], done: tuple[int, ...]) -> dict[str, list[int]]:
    """Two arrays of three tasks and two, as Slurm sees them."""
    job = job_of(tmp_path)
    begin(job)
    for number in done:
        pretend(job, number)
    arrays = {"7": {"offset": 0, "indexes": "0-2"}, "8": {"offset": 3, "indexes": "0-1"}}
    write_json(job.folder.slurm, {"ids": ["7", "8", "9"], "arrays": arrays})
    living = {"PENDING", "RUNNING"}
    states = {k: SlurmState(state, living=state in living) for k, state in slurm.items()}
    return task_states(job.folder, states, here=False, held=False)


def test_states_of_tasks_are_those_of_slurm_and_the_receipts(tmp_path: Path) -> None:
    slurm = {"7_0": "COMPLETED", "7_1": "RUNNING", "7_2": "FAILED", "8_0": "PENDING"}
    slurm |= {"8_1": "CANCELLED", "9": "PENDING", "6_0": "FAILED"}
    found = states_of(tmp_path, slurm, done=(0,))
    assert found == {"waiting": [3], "running": [1], "done": [0], "failed": [2], "cancelled": [4]}
    assert in_words(found) == (
        "waiting 1, running 1, done 1, failed 1 (task 2), cancelled 1 (task 4)"
    )
    assert overall(found) == "running"


def test_slurm_and_a_receipt_that_contradict_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that failed after its receipt is done; a receipt of an earlier submission is old."""
    job = job_of(tmp_path)
    begin(job)
    for number, array in ((0, "7"), (1, "5")):
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        pretend(job, number)
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID")
    found = states_of(tmp_path, {"7_0": "FAILED", "7_1": "FAILED"}, done=())
    assert found == {"done": [0], "failed": [1], "unknown": [2, 3, 4]}


def test_a_task_that_went_on_under_another_id(tmp_path: Path) -> None:
    slurm = {"7_0": "COMPLETED", "7_1": "COMPLETED", "7_2": "COMPLETED"}
    slurm |= {"8_0": "FAILED", "8_1": "COMPLETED", "12_0": "RUNNING"}
    job = job_of(tmp_path)
    begin(job)
    begin(job.of_task(3))
    job.folder.of_task(3).note_moved("12", 0)
    found = states_of(tmp_path, slurm, done=(0, 1, 2))
    assert found == {"done": [0, 1, 2], "running": [3], "failed": [4]}
    assert job.folder.slurm_ids()[-1] == "9"
    assert "12" in job.folder.slurm_ids()
    assert job.folder.of_task(3).slurm_ids() == ["8_0", "12_0"]


def test_states_of_many_tasks_are_had_without_reading_receipts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, "resources.tasks=2500")
    begin(job)
    for number in range(0, 2500, 2):
        job.folder.of_task(number).receipt.parent.mkdir(parents=True, exist_ok=True)
        job.folder.of_task(number).receipt.touch()
    arrays = {"7": {"offset": 0, "indexes": "0-2499"}}
    write_json(job.folder.slurm, {"ids": ["9"], "arrays": arrays})
    reads: dict[Path, int] = defaultdict(int)

    def counted(path: Path) -> Any:
        reads[path] += 1
        return read_json(path)

    monkeypatch.setattr(receipts, "read_json", counted)
    waits = {f"7_{n}": SlurmState("PENDING", living=True) for n in range(1, 2500, 2)}
    found = task_states(job.folder, waits, here=False, held=False)
    assert {state: len(tasks) for state, tasks in found.items()} == {"waiting": 1250, "done": 1250}
    assert not reads


def test_the_script_of_an_array_goes_to_the_folder_of_its_task(tmp_path: Path) -> None:
    """Its first lines are run as they are; the folder is compared with that of Python."""
    shown = plan_of(tmp_path).shown
    plan = load_plan(shown, ["resources.tasks=5000"], tmp_path / HOSTILE)
    job = plan.jobs["squares"]
    draft = Submission(job, load_cluster("devcluster"), tmp_path, "python")
    work = work_of(draft, range(5000))
    assert [part.place for part in work.drafts] == list(range(6))
    array = work.drafts[4]
    script = JobExecutor(array).render()
    assert "#SBATCH --array=0-995\n" in script
    assert "#SBATCH --output=/dev/null\n" in script
    begun = script[: script.index("exec >>") + len("exec >>logs/batch.log 2>&1")]
    environment = {"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "7"}
    command = ["bash", "-c", f"{begun}\necho here"]
    subprocess.run(command, env=environment, check=True)
    assert job.folder.of_task(4 * 1001 + 7).path.joinpath("logs/batch.log").read_text() == "here\n"


def test_what_waits_for_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three arrays, of which two may run: the third waits for the first; gather and job after."""
    path = tmp_path / "plan.yaml"
    squares = "squares: {stage: tests.stages.squares, resources: {tasks: 12, tasks_at_once: 2}}"
    after = 'after: {stage: tests.stages.squares, reads: "@squares/squares.txt"}'
    path.write_text(f"jobs:\n  {squares}\n  {after}\n")
    plan = load_plan(str(path), [], tmp_path / "run")
    cluster = load_cluster("devcluster").model_copy(update={"max_array_size": 5})
    ids = dict(submit_plan(plan, cluster, dry_run=True))
    assert ids == {"squares": "<id of squares>", "after": "<id of after>"}
    printed = capsys.readouterr().out
    calls = [shlex.split(line[2:]) for line in printed.splitlines() if line.startswith("$ ")]
    waits = [[word for word in call if word.startswith("--dependency")] for call in calls]
    first, second, third = (
        f"<id of tasks {tasks} of squares>" for tasks in ("0 to 4", "5 to 9", "10 to 11")
    )
    assert waits == [
        [],
        [],
        [f"--dependency=afterany:{first}"],
        [f"--dependency=afterok:{first}:{second}:{third}"],
        ["--dependency=afterok:<id of squares>"],
    ]
    bounds = [line for line in printed.splitlines() if line.startswith("#SBATCH --array")]
    assert bounds == [f"#SBATCH --array={part}%1" for part in ("0-4", "0-4", "0-1")]
    assert "#SBATCH --job-name=run.squares.gather\n#SBATCH --nodes=1\n" in printed
    assert not plan.run.exists()


def test_many_failed_tasks_are_named_in_part() -> None:
    assert in_words({"done": [1], "failed": list(range(9))}) == (
        "done 1, failed 9 (tasks 0, 1, 2, 3, 4, 5, 6, 7, ...)"
    )
