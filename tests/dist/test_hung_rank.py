"""A rank that hangs while others wait for it in a real collective, seen from outside."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from megatron_jobs.cli import main
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.inquiry import rank_states
from megatron_jobs.jobs.stall import judge_stall
from megatron_jobs.runtime.files import wait_for
from megatron_jobs.runtime.heartbeat import read_beats, starts_on_node

ROOT = Path(__file__).parents[2]
HERE = os.uname().nodename


@contextlib.contextmanager
def running(run: Path, trouble: str) -> Iterator[JobFolder]:
    """A local job of 3 ranks, while all of them are at step 3."""
    settings = {"trouble": trouble, "guilty": 1, "resources": {"ranks": 3}}
    plan = run.parent / "plan.yaml"
    plan.write_text(yaml.safe_dump({"jobs": {"job": {"stage": "tests.stages.hang"} | settings}}))
    command = [sys.executable, "-m", "megatron_jobs.cli", "run", str(plan), "--run", str(run)]
    process = subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True
    )
    folder = JobFolder(run / "job")

    def steps() -> list[int]:
        places = starts_on_node(folder.path, host=HERE)
        return [beat.step for place in places for beat in read_beats(place)]

    try:
        wait_for(lambda: steps() == [3, 3, 3], "step 3", seconds=60)
        yield folder
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(("trouble", "state"), [("sleep", ""), ("stop", "stopped")])
def test_the_hung_rank_is_told_from_those_that_wait(
    tmp_path: Path, trouble: str, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path / "run", trouble) as folder:
        wait_for(lambda: len(waiting(folder)) == 2, "two that wait", seconds=20)
        ranks = rank_states(folder)
        assert main(["stacks", str(tmp_path / "run"), "job"]) == 0
    stall = judge_stall(ranks, 5)
    assert (stall.rank, stall.node, stall.step, stall.what) == (1, HERE, 3, "data")
    assert stall.state == state
    assert stall.line.endswith("the other 2 wait in all_reduce")
    assert ("hang.py" in stall.where) is (trouble == "sleep")
    shown = capsys.readouterr().out
    assert f"1 rank: {'stopped ' * (trouble == 'stop')}1 on {HERE}; step 3, in data" in shown
    assert f"2 ranks: 0,2 on {HERE}; step 3, in agree" in shown
    assert "in all_reduce" in shown


def waiting(folder: JobFolder) -> list[int]:
    return [rank.rank for rank in rank_states(folder) if rank.waits()]
