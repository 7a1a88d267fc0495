"""The state of jobs that ran on this machine, and their logs."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.folder import JobFolder, write_job
from megatron_jobs.jobs.local import JobFailed, run_plan
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.queue import SlurmState
from megatron_jobs.jobs.states import judge_job
from megatron_jobs.jobs.status import log_files, plan_status
from megatron_jobs.runtime.files import wait_for, write_json

ROOT = Path(__file__).parents[3]
PLAN = """
jobs:
  b-first: {stage: tests.stages.echo, resources: {ranks: 2}}
  a-second: {stage: tests.stages.echo, after: [b-first], resources: {ranks: 3}}
"""


@pytest.fixture(autouse=True)
def _tests_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def plan_of(tmp_path: Path, *words: str) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return load_plan(str(path), list(words), tmp_path / "run")


def seen(plan: Plan) -> dict[str, tuple[str, str]]:
    return {record["job"]: (record["state"], record["reason"]) for record in plan_status(plan.run)}


def test_jobs_that_are_done_in_the_order_of_their_needs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    run_plan(plan)
    assert list(seen(plan).items()) == [("b-first", ("done", "")), ("a-second", ("done", ""))]
    assert plan_status(plan.run)[1]["numbers"] == {"ranks": 3, "nodes": 1}
    names = [path.name for path in log_files(plan.run, "b-first", None)]
    assert names == ["launch.log", "rank-00000.log", "rank-00001.log"]
    assert log_files(plan.run, "b-first", 1)[0].read_text().startswith("rank 1 of 2 on ")
    with pytest.raises(
        UserError, match=r"^b-first: no log of rank 2; there are 2, counted from 0$"
    ):
        log_files(plan.run, "b-first", 2)
    with pytest.raises(UserError, match="no such job: 'b-frist'; did you mean b-first"):
        log_files(plan.run, "b-frist", None)


def test_the_rank_that_failed_is_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "a-second.trouble=bug", "a-second.guilty=1")
    with pytest.raises(JobFailed):
        run_plan(plan)
    folder = plan.jobs["a-second"].folder
    reason = f"rank 1: ZeroDivisionError: a planted bug; see {folder.log(1)}"
    assert seen(plan)["a-second"] == ("failed", reason)
    write_json(folder.outcome, {"status": 1, "guilty": 2, "signal": "SIGKILL"})
    assert seen(plan)["a-second"] == ("failed", "rank 2: SIGKILL")
    write_json(folder.outcome, {"status": 75, "guilty": 2, "signal": ""})
    assert seen(plan)["a-second"] == ("stopped", "saved; run it again to go on")


def test_a_job_that_runs_and_one_whose_launcher_was_killed(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "b-first.seconds=60")
    command = [sys.executable, "-m", "megatron_jobs.cli", "run", plan.shown, "b-first.seconds=60"]
    command += ["--run", str(plan.run)]
    with subprocess.Popen(command, start_new_session=True) as runner:
        log = plan.jobs["b-first"].folder.log(0)
        wait_for(log.exists, "the first rank", seconds=30)
        assert seen(plan) == {"b-first": ("running", "")}
        os.killpg(runner.pid, 9)
    wait_for(lambda: seen(plan)["b-first"][0] != "running", "the end of all ranks", seconds=10)
    assert seen(plan)["b-first"] == (
        "interrupted",
        "ended without a word; run it again to go on",
    )


def test_a_run_that_was_copied_away_from_its_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path)
    run_plan(plan)
    monkeypatch.setenv("PATH", "")
    folder = plan.jobs["a-second"].folder
    write_json(folder.slurm, {"cluster": "far", "ids": ["17"]})
    assert seen(plan)["a-second"] == ("done", "")
    folder.receipt.unlink()
    assert seen(plan)["a-second"] == ("unknown", "no Slurm here that knows this job")


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        plan_status(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no run folder: no job has been started or submitted in it"
    )


def test_of_several_ranks_the_first_that_failed_is_blamed(tmp_path: Path) -> None:
    from megatron_jobs.jobs.logs import blame

    folder = JobFolder(tmp_path)
    folder.logs.mkdir()
    batch = folder.logs / "batch.log"
    assert blame(folder) == "left no log"
    batch.write_text(
        "2026 Slurm job 5, restart 0, on n[1-2]\nsrun: error: n1: task 0: Killed\n"
        "2026 Slurm job 5, restart 1, on n[1-2]\nsrun: error: n2: tasks 6-7: Out Of Memory\n"
        "srun: error: n1: task 0: Terminated\n"
    )
    assert blame(folder) == f"rank 6 on n2: Out Of Memory; see {folder.log(6)}"
    for rank, second in ((0, 30), (4, 20), (5, 25)):
        folder.error(rank).write_text(f"Traceback\nValueError: of {rank}\n")
        os.utime(folder.error(rank), (second, second))
    assert blame(folder) == f"rank 4: ValueError: of 4; see {folder.log(4)}"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/config.yaml").write_text("model: big\n")
    with pytest.raises(UserError, match=r"not a job's; is .* a run folder"):
        plan_status(tmp_path)


def test_jobs_that_were_turned_round_are_still_told(tmp_path: Path) -> None:
    """Their folders say what each waited for when it ran, which may be a circle by now."""
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"stage: tokenizer\nafter: [{other}]\n")
    assert [record["job"] for record in plan_status(tmp_path)] == ["a", "b"]


def test_a_local_run_counts_after_a_cancelled_slurm_job(tmp_path: Path) -> None:
    """Submitted, cancelled while it waited, then run here to its end: done."""
    plan = plan_of(tmp_path)
    folder = plan.jobs["a-second"].folder
    folder.path.mkdir(parents=True)
    write_json(folder.slurm, {"cluster": "far", "ids": ["17"]})
    run_plan(plan)
    states = {"17": SlurmState("CANCELLED")}
    assert judge_job(folder, "17", states)["state"] == "done"


def test_a_job_that_goes_on_under_a_new_id_while_slurm_is_asked(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    folder = plan.jobs["b-first"].folder
    write_job(folder, plan.jobs["b-first"].description())
    write_json(folder.slurm, {"cluster": "c", "ids": ["7"]})
    asked: list[list[str]] = []

    def ask(ids: Sequence[str]) -> dict[str, SlurmState]:
        asked.append(list(ids))
        write_json(folder.slurm, {"cluster": "c", "ids": ["7", "9"]})
        known = {"7": SlurmState("COMPLETED"), "9": SlurmState("PENDING", living=True)}
        return {slurm_id: known[slurm_id] for slurm_id in ids}

    assert [record["state"] for record in plan_status(plan.run, ask)] == ["waiting"]
    assert asked == [["7"], ["7", "9"]]
