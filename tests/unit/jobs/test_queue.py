"""What squeue and sacct print, read; here from stand-ins, in tests/slurm from the real ones."""

from datetime import datetime
from pathlib import Path

import pytest

from megatron_jobs.errors import MegatronJobsError, UserError
from megatron_jobs.jobs.queue import SlurmState, cancel, live_states, slurm_states, time_of
from megatron_jobs.jobs.starts import Start


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Stand":
    monkeypatch.setenv("PATH", str(tmp_path))
    return Stand(tmp_path)


def line(slurm_id: int, state: str, seconds: int, rest: str = "|Unknown|Unknown||||") -> str:
    """One of sacct's, of a job that never came to run unless `rest` says so."""
    return f"{slurm_id}|{state}|{seconds}|2026-03-04T05:00:00{rest}\\n"


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
    says(
        "squeue",
        r"7|PENDING|0:00|2026-03-04T05:06:07|BeginTime\n9|COMPLETED|1-02:03:04|N/A|None\n",
    )
    lines = [line(7, "PREEMPTED", 5), line(7, "NODE_FAIL", 60), line(8, "CANCELLED by 1000", 2)]
    says("sacct", "".join([*lines, line(9, "RUNNING", 3)]))
    expected = datetime(2026, 3, 4, 5, 6, 7).timestamp()
    assert slurm_states(["7", "8", "9"]) == {
        "7": SlurmState("PENDING", "BeginTime", 0, restarts=1, living=True, expected=expected),
        "8": SlurmState("CANCELLED", seconds=2),
        "9": SlurmState("COMPLETED", "None", 93784),
    }
    assert list(live_states(["7", "8", "9"])) == ["7"]


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED", "REQUEUED", "COMPLETING", "SUSPENDED"])
def test_these_are_not_the_end_while_the_controller_knows_the_job(says: Stand, state: str) -> None:
    says("squeue", rf"7|{state}|5:06|N/A|None\n")
    assert live_states(["7"]) == {"7": SlurmState(state, "None", 306, living=True)}


def test_a_job_forgotten_by_the_controller_is_known_to_the_accounting(says: Stand) -> None:
    says("squeue", "", error="slurm_load_jobs error: Invalid job id specified", status=1)
    says("sacct", line(7, "TIMEOUT", 3600))
    assert slurm_states(["7"]) == {"7": SlurmState("TIMEOUT", seconds=3600)}


def test_a_cluster_without_accounting(says: Stand) -> None:
    says("squeue", r"7|FAILED|0:05|N/A|NonZeroExitCode\n")
    says("sacct", "", error="Slurm accounting storage is disabled", status=1)
    assert slurm_states(["7"])["7"].state == "FAILED"


def test_each_start_is_told_with_its_nodes_and_what_it_used(says: Stand) -> None:
    """Energy in its own field, else in the TRES; Slurm's word for no number is none."""
    day, tres = "2026-03-04T", "billing=4,cpu=4,gres/gpu:h100=2,gres/gpu=2,mem=8G,node=2"
    first = f"|{day}05:00:01|{day}05:00:02|{day}05:01:02|n[1-2]|{tres},energy=700|"
    second = f"|{day}05:01:05|{day}05:01:06|{day}05:01:07|n2|{tres}|18446744073709551614"
    third = f"|{day}05:01:05|{day}05:01:06|Unknown|n2|{tres}|90"
    says("squeue", r"7|RUNNING|5:06|N/A|None\n")
    lines = [line(7, "REQUEUED", 60, first), line(7, "NODE_FAIL", 1, second)]
    says("sacct", "".join([*lines, line(7, "RUNNING", 3, third)]))
    starts = slurm_states(["7"])["7"].starts
    began = datetime(2026, 3, 4, 5, 0, 2).timestamp()
    assert starts[0] == Start(
        slurm_id="7", state="REQUEUED", submitted=began - 2, eligible=began - 1, began=began,
        ended=began + 60, nodes=("n1", "n2"), cpus=4, gpus=2, joules=700.0,
    )  # fmt: skip
    assert [start.joules for start in starts] == [700.0, None, 90.0]
    says("sacct", line(7, "PENDING", 0, third))  # as of --test-only, under an id that is used again
    assert slurm_states(["7"])["7"].starts == ()
    assert [start.seconds(began + 100) for start in starts] == [60.0, 1.0, 36.0]


def test_many_ids_are_asked_for_in_few_calls(says: Stand, tmp_path: Path) -> None:
    """Linux takes 131,072 bytes in one word; 40,000 ids of 7 characters have more."""
    says("squeue", "")
    says("sacct", "")
    for command in ("squeue", "sacct"):
        path = tmp_path / command
        path.write_text(f"{path.read_text()[:12]}printf '.' >>{tmp_path}/{command}.calls\n")
    slurm_states([str(number) for number in range(1_000_000, 1_040_000)])
    assert (tmp_path / "squeue.calls").read_text() == "...."
    assert (tmp_path / "sacct.calls").read_text() == "...."


def test_errors_are_told(says: Stand) -> None:
    with pytest.raises(UserError, match="scancel: no such command here"):
        cancel(["7"])
    told = "squeue: fatal: Could not establish a configuration source"
    says("squeue", "", error=told, status=1)
    words = "squeue: Slurm is installed, but knows of no cluster; use a login node of the cluster"
    with pytest.raises(UserError, match=words):
        live_states(["7"])
    told = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    says("squeue", "", error=told, status=1)
    with pytest.raises(MegatronJobsError) as caught:
        live_states(["7"])
    assert not isinstance(caught.value, UserError)  # which means: no Slurm here
    assert str(caught.value) == (
        "squeue: Unable to contact slurm controller; it is down, or being restarted: try again in "
        "some minutes"
    )
    says("squeue", "", error="slurm_load_jobs error: Zero Bytes", status=1)
    with pytest.raises(MegatronJobsError, match="squeue: slurm_load_jobs error: Zero Bytes"):
        live_states(["7"])
    says("scancel", "", error="scancel: error: Access denied", status=1)
    with pytest.raises(MegatronJobsError, match="scancel 7 8: scancel: error: Access denied"):
        cancel(["7", "8"])


@pytest.mark.parametrize(
    ("tres", "gpus"),
    [
        ("cpu=4,gres/gpu:h100=6,gres/gpu=6,node=2", 6),
        ("cpu=4,gres/gpu:h100=8,gres/gpu:a100=2,node=2", 10),
        ("billing=4,cpu=4,mem=8G,node=2", 0),
        ("cpu=4,gres/gpumem=80G,gres/gpuutil=100,node=2", 0),
    ],
)
def test_gpus_are_counted_however_they_are_accounted(says: Stand, tres: str, gpus: int) -> None:
    says("squeue", "")
    day = "2026-03-04T"
    says("sacct", line(7, "FAILED", 60, f"|{day}05:00:01|{day}05:00:02|{day}05:01:02|n1|{tres}|"))
    assert [start.gpus for start in slurm_states(["7"])["7"].starts] == [gpus]


def test_times_are_read_as_numbers_and_as_slurm_writes_them(says: Stand) -> None:
    """Numbers are asked for; 2026-03-04T05:06:07 is as many seconds since 1970 by the calendar."""
    local = datetime(2026, 3, 4, 5, 6, 7).timestamp()
    says("squeue", rf"7|PENDING|0:00|{local:.0f}|Resources\n8|PENDING|0:00|N/A|Priority\n")
    says("sacct", "7|NODE_FAIL|60|1700000000|1700000001|1700000002|1700000062|n1|cpu=1|\\n")
    states = slurm_states(["7", "8"])
    assert (states["7"].expected, states["8"].expected) == (local, None)
    assert [(s.submitted, s.began, s.ended) for s in states["7"].starts] == [
        (1700000000, 1700000002, 1700000062)
    ]
    assert time_of("2026-03-04T05:06:07") == local
    assert time_of("Tomor 05:06") is None


def test_what_a_user_sets_up_for_his_own_eyes_does_not_count(
    says: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SQUEUE_PARTITION", "SQUEUE_USERS", "SACCT_FORMAT", "SINFO_STATES"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_CLUSTERS", "far")
    for command in ("squeue", "sacct"):
        says(command, "")
        script = tmp_path / command
        noted = f"/usr/bin/env >{tmp_path}/{command}.env"
        script.write_text(script.read_text().replace("printf", f"{noted}\nprintf", 1))
    slurm_states(["7"])
    for command in ("squeue", "sacct"):
        seen = (tmp_path / f"{command}.env").read_text().splitlines()
        assert "SLURM_TIME_FORMAT=%s" in seen
        assert "SLURM_CLUSTERS=far" in seen  # which cluster is meant does count
        assert not [name for name in seen if name.startswith(("SQUEUE", "SACCT", "SINFO"))]


def test_without_the_command_sacct_squeue_still_tells_of_the_living(says: Stand) -> None:
    says("squeue", r"7|RUNNING|0:05|N/A|None\n")
    assert slurm_states(["7"]) == {"7": SlurmState("RUNNING", "None", 5, living=True)}


def test_nothing_is_asked_of_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert (slurm_states([]), live_states([]), cancel([])) == ({}, {}, None)
