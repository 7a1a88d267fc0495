"""Signals to a run on this machine: nothing is cut short, left behind or run twice."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_jobs.runtime.files import read_json, wait_for

ROOT = Path(__file__).parents[2]
PLAN = """
jobs:
  first: {stage: tests.stages.echo, resources: {ranks: 2}, seconds: 30, saving: 1.5}
  second: {stage: tests.stages.echo, after: [first]}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path / "run"


def command(run: Path, *words: str) -> list[str]:
    plan = str(run.parent / "plan.yaml")
    return [sys.executable, "-m", "megatron_jobs.cli", "run", plan, *words, "--run", str(run)]


@contextlib.contextmanager
def started(run: Path, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """A run in a process group of its own, both ranks of its first job at work."""
    process = subprocess.Popen(
        command(run, *words),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    logs = [run / f"first/logs/rank-0000{rank}.log" for rank in range(2)]
    try:
        wait_for(
            lambda: all(path.exists() and path.read_text() for path in logs), "ranks", seconds=30
        )
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def processes_of(run: Path) -> list[int]:
    """Living processes that were started with the run's folder in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes()
            dead = (path / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
            if os.fsencode(run) in words and not dead:
                found.append(int(path.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_lets_every_rank_save_once(
    run: Path, number: signal.Signals
) -> None:
    """As a terminal sends it: to mj, to the launcher and to each rank at the same time."""
    with started(run) as process:
        os.killpg(process.pid, number)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 75, error
    assert error.strip().endswith("first: stopped and saved; run it again to go on")
    assert (run / "first/saved").exists()
    assert not (run / "second").exists()
    assert not processes_of(run)


def test_a_signal_to_mj_alone_reaches_the_ranks(run: Path) -> None:
    with started(run) as process:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 75
    assert (run / "first/saved").exists()
    assert not processes_of(run)


@pytest.mark.parametrize("who", ["mj", "launcher"])
def test_a_kill_leaves_no_rank_behind(run: Path, who: str) -> None:
    with started(run) as process:
        launcher = next(pid for pid in processes_of(run) if is_launcher(pid))
        os.kill(process.pid if who == "mj" else launcher, signal.SIGKILL)
        process.communicate(timeout=30)
        wait_for(lambda: not processes_of(run), "the end of all ranks", seconds=15)
    assert (run / "first/saved").exists()
    assert not (run / "first/receipt.json").exists()


def is_launcher(pid: int) -> bool:
    """Whether a process is the parent of the ranks, not one of them (they share its words)."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return b"--fork" in words and b"--fork" not in Path(f"/proc/{parent}/cmdline").read_bytes()


def test_two_runs_in_one_folder_are_refused(run: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with started(run) as process:
        second = subprocess.run(
            command(run, "first.text=other"), env=environment, capture_output=True, text=True,
            check=False, timeout=30,
        )  # fmt: skip
        assert second.returncode == 2
        assert f"first: runs already: process {process.pid} on " in second.stderr
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert not (run / ".replaced").exists()


def test_a_job_that_ends_all_the_same_is_the_last(run: Path) -> None:
    """Asked to stop while the first job writes its receipt, so to say: the second is not begun."""
    (run.parent / "plan.yaml").write_text(PLAN.replace("saving: 1.5", "stubborn: true"))
    with started(run, "first.seconds=3") as process:
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 75
    assert "first: done; asked to stop before the next job" in error
    assert (run / "first/receipt.json").exists()
    assert not (run / "second").exists()


def test_hours_of_all_starts_are_counted(run: Path) -> None:
    """The second start finds the files of the first: the same work, gone on with."""
    (run.parent / "plan.yaml").write_text(PLAN.replace("seconds: 30", "seconds: 3"))
    with started(run) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command(run), env=environment, check=True, capture_output=True, timeout=60)
    last = time.monotonic() - began
    receipt = read_json(run / "first/receipt.json")
    assert receipt["starts"] == 2
    assert 1.5 + 1.5 + 3 < receipt["seconds"] < last + 10  # the first saved for 1.5 s too
    assert abs(receipt["cpu_hours"] * 3600 - 2 * receipt["seconds"]) < 0.01


def test_what_is_told_to_ignore_a_hangup_goes_on(run: Path) -> None:
    """As under nohup."""
    (run.parent / "plan.yaml").write_text(PLAN.replace("seconds: 30", "seconds: 3"))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with started(run) as process:
            os.killpg(process.pid, signal.SIGHUP)
            _, error = process.communicate(timeout=30)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.returncode == 0, error
    assert (run / "second/receipt.json").exists()


def test_the_switch_kill_stops_it_and_keeps_it_from_starting(run: Path) -> None:
    (run.parent / "plan.yaml").write_text(PLAN.replace("seconds: 30", "seconds: 0"))
    switch = run / "first/KILL"
    with started(run, "first.seconds=30") as process:
        switch.touch()
        _, error = process.communicate(timeout=30)
    how = f"{switch} is there; remove it, and run it again to go on\n"
    assert (process.returncode, error) == (75, f"mj run: first: stopped and saved; {how}")
    assert (run / "first/saved").exists()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    call = {"env": environment, "capture_output": True, "text": True, "timeout": 60}
    refused = subprocess.run(command(run), check=False, **call)  # type: ignore[call-overload]
    assert (refused.returncode, refused.stderr) == (2, f"mj run: first: {how}")
    switch.unlink()
    subprocess.run(command(run), check=True, **call)  # type: ignore[call-overload]
    assert (run / "second/receipt.json").exists()
