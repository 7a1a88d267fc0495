"""What `mj status` and `mj logs` tell of jobs on a real Slurm, and how often they ask it."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.config.site import Prices
from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.status import cancel_run, plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import wait_for

TWO_BY_TWO = {"nodes": 2, "ranks": 2, "hours": 0.2, "gpus": 3}
PRICES = Prices(gpu_hour=2.5, cpu_hour=0.01, currency="EUR")


def submitted(tmp_path: Path, entries: dict[str, dict[str, Any]]) -> Plan:
    """Echo jobs on the tests' cluster, for money."""
    frame = {"stage": "tests.stages.echo", "resources": TWO_BY_TWO}
    path = tmp_path / "plan.yaml"
    jobs = {name: frame | entry for name, entry in entries.items()}
    path.write_text(yaml.safe_dump({"jobs": jobs}, sort_keys=False))
    plan = load_plan(str(path), [], tmp_path / "run")
    cluster = load_cluster("devcluster").model_copy(update={"prices": PRICES})
    submit_plan(plan, cluster, dry_run=False)
    return plan


def mj(*words: object) -> list[str]:
    return [sys.executable, "-m", "megatron_jobs.cli", *map(str, words)]


def output_of(*words: object) -> str:
    done = subprocess.run(mj(*words), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def seconds_of(*words: object) -> float:
    """Of processors, used by a command and those of Slurm that it calls."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output_of(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def has_begun(plan: Plan, job: str) -> bool:
    """Whether it is known where a job runs: from its events, until sacct learns of it."""
    (record,) = [record for record in plan_status(plan.run) if record["job"] == job]
    return record["state"] == "running" and any(start.nodes for start in record["starts"])


def states(plan: Plan) -> dict[str, str]:
    return {record["job"]: record["state"] for record in plan_status(plan.run)}


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which each call of a command of Slurm adds a line; the real one is then called."""
    folder, log = tmp_path / "noting", tmp_path / "calls"
    ours = '[ -n "$SLURM_JOB_ID" ]'  # a batch script, which is not counted
    folder.mkdir()
    for name in ("squeue", "sacct", "scontrol", "sinfo"):
        wrapper = folder / name
        wrapper.write_text(
            f'#!/bin/sh\n{ours} || echo {name} >>{log}\nexec {shutil.which(name)} "$@"\n'
        )
        wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


@pytest.mark.usefixtures("calm_nodes")
def test_ten_jobs_take_two_calls_and_less_than_a_second(tmp_path: Path, calls: Path) -> None:
    big = TWO_BY_TWO | {"nodes": 6, "gpus": 8}
    entries: dict[str, dict[str, Any]] = {"first": {"seconds": 600}}
    entries |= {f"job-{i}": {"after": ["first"]} for i in range(7)}
    entries |= {"join": {"after": ["job-2", "job-5"]}, "big": {"resources": big}}
    plan = submitted(tmp_path, entries)
    try:
        wait_for(lambda: has_begun(plan, "first"), "the first job", seconds=180)
        calls.write_text("")
        told = json.loads(output_of("status", plan.run, "--json"))
        assert sorted(calls.read_text().split()) == ["sacct", "squeue"]
        # time that passes is the machine's as well: tests/unit/jobs/test_status.py
        assert min(seconds_of("status", plan.run) for _ in range(3)) < 1
        found = {job["job"]: job for job in told["jobs"]}
        assert found["job-3"]["state"] == found["join"]["state"] == "waiting"
        assert found["join"]["reason"] == "after job-2, job-5"
        assert found["big"]["state"] == "waiting"
        assert found["big"]["reason"] in ("not looked at yet", "no free nodes")
        (start,) = found["first"]["starts"]
        assert start["nodes"] == ["node1", "node2"]
        assert (start["gpus"], start["ended"]) == (6, None)
        shown = [line.split()[:3] for line in output_of("status", plan.run).splitlines()]
        assert ["├─", "job-0", "waiting"] in shown
        assert ["│", "└─", "join"] in shown
        assert ["10", "jobs", "9"] in shown  # waiting
    finally:
        cancel_run(plan.run, [])
    line = output_of("status", plan.run, "--watch").splitlines()[-1]
    assert "cancelled" in line


def test_a_requeued_job_is_followed_to_its_end_and_each_start_counts(tmp_path: Path) -> None:
    plan = submitted(tmp_path, {"job": {"seconds": 600, "slow_once": True}})
    folder = plan.jobs["job"].folder
    with subprocess.Popen(
        mj("logs", plan.run, "job", "-f", "--rank", 1), stdout=subprocess.PIPE, text=True
    ) as follower:
        wait_for(lambda: len(folder.rank_logs()) == 4, "the ranks", seconds=180)
        wait_for(lambda: all(p.read_text() for p in folder.rank_logs()), "their words", seconds=180)
        subprocess.run(["scancel", "--signal=USR2", folder.slurm_ids()[-1]], check=True)
        words, _ = follower.communicate(timeout=300)
    begin = [line[:7] for line in words.splitlines()]
    assert begin == ["rank 1 ", "stopped", "--- goe", "rank 1 "]
    wait_for(lambda: states(plan) == {"job": "done"}, "its receipt", seconds=180)
    asked = ["--duplicates", "--allocations", "--noheader", "--format=ElapsedRaw,State"]
    command = ["sacct", *asked, f"--jobs={folder.slurm_ids()[-1]}"]

    def lines() -> list[list[str]]:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return [line.split() for line in done.stdout.splitlines()]

    wait_for(lambda: lines()[-1][1] == "COMPLETED", "the accounting", seconds=60, every=0.3)
    (record,) = plan_status(plan.run)
    assert [start.state for start in record["starts"]] == [state for _, state in lines()]
    hours = sum(int(seconds) for seconds, _ in lines()) / 3600
    assert record["costs"].gpu_hours == pytest.approx(hours * 6)
    assert record["costs"].cpu_hours == pytest.approx(hours * 4)
    assert record["costs"].money == {"EUR": pytest.approx(hours * (6 * 2.5 + 4 * 0.01))}
    assert record["restarts"] == 1


@pytest.mark.usefixtures("calm_nodes")
def test_the_log_of_the_rank_that_failed(tmp_path: Path) -> None:
    plan = submitted(tmp_path, {"bad": {"trouble": "bug", "guilty": 3}, "next": {"after": ["bad"]}})
    wait_for(lambda: states(plan)["bad"] == "failed", "the failure", seconds=240, every=0.3)
    words = output_of("logs", plan.run, "--failed")
    assert "bad, rank 3" in words.splitlines()[0]
    assert "a planted bug" in words.splitlines()[0]
    assert str(plan.jobs["bad"].folder.log(3)) in words
    assert "rank 3 of 4 on node2" in words
    assert "rank 0 of 4" not in words
