"""What squeue and sacct print, read; here from stand-ins, in tests/slurm from the real ones."""

from pathlib import Path

import pytest

from megatron_jobs.errors import MegatronJobsError, UserError
from megatron_jobs.jobs.queue import SlurmState, cancel, live_states, slurm_states


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Stand":
    monkeypatch.setenv("PATH", str(tmp_path))
    return Stand(tmp_path)


class Stand:
    """Makes commands that print what is wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, command: str, text: str, *, error: str = "", status: int = 0) -> None:
        path = self.folder / command
        path.write_text(f"#!/bin/bash\nprintf '{text}'\nprintf '{error}' >&2\nexit {status}\n")
        path.chmod(0o755)


def test_the_controller_has_the_last_word(says: Stand) -> None:
    """A job that lost its node is listed by sacct as if that were its end."""
    says("squeue", r"7|PENDING|BeginTime|0:00\n9|COMPLETED|None|1-02:03:04\n")
    says("sacct", r"7|PREEMPTED|5\n7|NODE_FAIL|60\n8|CANCELLED by 1000|2\n9|RUNNING|3\n")
    ended = SlurmState("CANCELLED", seconds=2)
    assert slurm_states(["7", "8", "9"]) == {
        "7": SlurmState("PENDING", "BeginTime", 0, restarts=1, living=True),
        "8": ended,
        "9": SlurmState("COMPLETED", "None", 93784),
    }
    assert list(live_states(["7", "8", "9"])) == ["7"]


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED", "REQUEUED", "COMPLETING", "SUSPENDED"])
def test_these_are_not_the_end_while_the_controller_knows_the_job(says: Stand, state: str) -> None:
    says("squeue", rf"7|{state}|None|5:06\n")
    assert live_states(["7"]) == {"7": SlurmState(state, "None", 306, living=True)}


def test_a_job_forgotten_by_the_controller_is_known_to_the_accounting(says: Stand) -> None:
    says("squeue", "", error="slurm_load_jobs error: Invalid job id specified", status=1)
    says("sacct", r"7|TIMEOUT|3600\n")
    assert slurm_states(["7"]) == {"7": SlurmState("TIMEOUT", seconds=3600)}


def test_a_cluster_without_accounting(says: Stand) -> None:
    says("squeue", r"7|FAILED|NonZeroExitCode|0:05\n")
    says("sacct", "", error="Slurm accounting storage is disabled", status=1)
    assert slurm_states(["7"])["7"].state == "FAILED"


def test_errors_are_told(says: Stand) -> None:
    with pytest.raises(UserError, match="scancel: no such command here"):
        cancel(["7"])
    says("squeue", "", error="slurm_load_jobs error: Unable to contact slurm controller", status=1)
    with pytest.raises(UserError, match="squeue: Slurm is installed, but no cluster answers; use"):
        live_states(["7"])
    says("squeue", "", error="slurm_load_jobs error: Zero Bytes", status=1)
    with pytest.raises(MegatronJobsError, match="squeue: slurm_load_jobs error: Zero Bytes"):
        live_states(["7"])
    says("scancel", "", error="scancel: error: Access denied", status=1)
    with pytest.raises(MegatronJobsError, match="scancel 7 8: scancel: error: Access denied"):
        cancel(["7", "8"])


def test_nothing_is_asked_of_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert (slurm_states([]), live_states([]), cancel([])) == ({}, {}, None)
