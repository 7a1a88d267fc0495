"""The state of jobs that ran on this machine, and their logs."""

import html
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.errors import MegatronJobsError, UserError
from megatron_jobs.jobs.folder import JobFolder, write_job
from megatron_jobs.jobs.local import JobFailed, run_plan
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.queue import SlurmState, _start_of
from megatron_jobs.jobs.report import write_report
from megatron_jobs.jobs.states import judge_job
from megatron_jobs.jobs.status import log_files, plan_status
from megatron_jobs.runtime.files import wait_for, write_json
from tests.runs import FIRST, add_event, add_receipt, add_starts, make_job

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


def submitted(run: Path, name: str, slurm_id: str, **settings: Any) -> JobFolder:
    folder = make_job(run, name, **settings)
    write_json(folder.slurm, {"cluster": "c", "ids": [slurm_id]})
    return folder


def told(run: Path, states: Mapping[str, SlurmState]) -> list[tuple[str, str]]:
    return [(r["state"], r["reason"]) for r in plan_status(run, lambda _: states)]


def test_slurm_that_does_not_answer_is_not_slurm_that_is_absent(tmp_path: Path) -> None:
    submitted(tmp_path, "job", "7")

    def ask(ids: Sequence[str]) -> dict[str, SlurmState]:
        raise MegatronJobsError("squeue: Unable to contact slurm controller; it is down")

    (record,) = plan_status(tmp_path, ask)
    words = "Slurm does not answer now (squeue: Unable to contact slurm controller)"
    assert (record["state"], record["reason"]) == ("unknown", words)


@pytest.mark.parametrize(
    ("slurm", "state", "reason"),
    [
        (SlurmState("REQUEUE_HOLD", "None"), "waiting", "held after a requeue: scontrol release"),
        (
            SlurmState("RESV_DEL_HOLD", "None"),
            "waiting",
            "held, its reservation is gone: scontrol release",
        ),
        (
            SlurmState("PENDING", "JobHoldMaxRequeue"),
            "waiting",
            "was requeued as often as Slurm lets it: scontrol release",
        ),
        (
            SlurmState("PENDING", "user env retrieval failed requeued held"),
            "waiting",
            "held, its user's environment could not be read on the node: scontrol release",
        ),
        (SlurmState("SUSPENDED"), "running", "stands still: Slurm has suspended it"),
        (
            SlurmState("STOPPED", restarts=1),
            "running",
            "stands still: it was sent SIGSTOP, and keeps its nodes",
        ),
    ],
)
def test_jobs_that_slurm_holds_or_halts(
    tmp_path: Path, slurm: SlurmState, state: str, reason: str
) -> None:
    submitted(tmp_path, "job", "7")
    assert told(tmp_path, {"7": replace(slurm, living=True)}) == [(state, reason)]


def test_a_job_that_was_stopped_for_good_did_not_fail(tmp_path: Path) -> None:
    """It ends with a status, 75, which Slurm takes for a failure; so do those that need it."""
    folder = submitted(tmp_path, "a", "7")
    submitted(tmp_path, "b", "8", after=["a"])
    ended = {"7": SlurmState("FAILED"), "8": SlurmState("CANCELLED")}
    add_event(folder, 1, "start", nodes=["n1"])
    assert told(tmp_path, ended)[0] == ("failed", "left no log")
    add_event(folder, 2, "stop", why="KILL is there", status=75)
    assert told(tmp_path, ended) == [
        ("stopped", "KILL is there"),
        ("cancelled", "needs a, which did not end well"),
    ]
    add_event(folder, 3, "start", nodes=["n1"])
    add_event(folder, 4, "stop", why="Killed; never again", status=1)
    assert told(tmp_path, ended)[0][0] == "failed"


@pytest.mark.parametrize("name", ["receipt.json", "slurm.json"])
def test_a_file_that_was_cut_short_hides_no_other_job(tmp_path: Path, name: str) -> None:
    broken, good = submitted(tmp_path, "a", "7"), submitted(tmp_path, "b", "8", after=["a"])
    add_starts(broken, (0, None))
    add_receipt(broken, 10, slurm_job_ids=["7"])
    add_receipt(good, 10, slurm_job_ids=["8"])
    path = broken.path / name
    path.write_bytes(path.read_bytes()[:5])
    states = {"7": SlurmState("COMPLETED"), "8": SlurmState("COMPLETED")}
    first, second = told(tmp_path, states)
    assert first[0] == "unknown"
    assert first[1].startswith(f"{path}: found 5 bytes that are no JSON (")
    assert second == ("done", "")
    page = write_report(tmp_path, tmp_path / "page.html").read_text()
    assert html.escape(f"{path}: found 5 bytes") in page


@pytest.mark.parametrize(
    ("tres", "hours"), [("gres/gpu:h100=5,gres/gpu=5", 5), ("gres/gpu:h100=5", 5), ("cpu=2", 16)]
)
def test_gpu_hours_however_slurm_accounts_gpus(tmp_path: Path, tres: str, hours: int) -> None:
    """Not at all by default: then they are those that the job asked for, 2 nodes with 8."""
    folder = submitted(tmp_path, "job", "7", resources={"nodes": 2, "gpus": 8})
    add_starts(folder, (1, None), slurm_id="7")
    times = [f"{FIRST + seconds:.0f}" for seconds in (0, 0, 0, 3600)]
    start = _start_of("7", "FAILED", [*times, "n[1-2]", tres, ""])
    assert start is not None
    (record,) = plan_status(tmp_path, lambda _: {"7": SlurmState("FAILED", starts=(start,))})
    assert record["costs"].gpu_hours == hours


def test_ten_jobs_are_told_of_in_less_than_a_second(tmp_path: Path) -> None:
    """With all the files that a job leaves; Slurm's answer is at hand."""
    for number in range(10):
        folder = submitted(tmp_path, f"job-{number}", str(number))
        add_starts(folder, (0, 60), (100, 160), slurm_id=str(number))
        for at in range(50):
            add_event(folder, at, "start", nodes=[f"n{at}"], reached=at)
        add_receipt(folder, 160, slurm_job_ids=[str(number)])
    states = {str(number): SlurmState("COMPLETED") for number in range(10)}
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        records = plan_status(tmp_path, lambda _: states)
        seconds.append(time.monotonic() - began)
    assert [record["state"] for record in records] == ["done"] * 10
    assert min(seconds) < 1
