"""The table of `mj status`, and how seldom a live one asks."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from megatron_jobs.config.site import Prices
from megatron_jobs.errors import MegatronJobsError
from megatron_jobs.jobs.cluster import Cluster, write_cluster
from megatron_jobs.jobs.queue import SlurmState
from megatron_jobs.jobs.reasons import plain_reason
from megatron_jobs.jobs.starts import Start
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.runtime.files import write_json
from megatron_jobs.terminal import status
from megatron_jobs.terminal.status import print_status_json, show_status, watch_status
from tests.runs import FIRST, add_event, add_receipt, add_starts, make_job

RAN = Start(slurm_id="8", state="COMPLETED", began=FIRST, ended=FIRST + 3600, cpus=2, gpus=4)


def test_what_is_seen_of_each_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = make_job(tmp_path, "train")
    write_json(train.slurm, {"cluster": "here", "ids": ["7", "8"]})
    write_cluster(train, Cluster(name="here", prices=Prices(gpu_hour=2, currency="EUR")))
    add_receipt(train, numbers={"loss": 2.25}, slurm_job_ids=["8"], energy_joules=7.2e6)
    later = make_job(tmp_path, "a\nb [red]", after=["train"])
    write_json(later.slurm, {"cluster": "here", "ids": ["9"]})
    stuck = make_job(tmp_path, "stuck", after=["train"])
    write_json(stuck.slurm, {"cluster": "here", "ids": ["10"]})
    add_event(stuck, 1, "start", nodes=["n1"])
    add_event(stuck, 2, "stall", rank=3, node="n1", step=5, where="all_reduce")
    states = {
        "8": SlurmState("COMPLETED", restarts=1, starts=(RAN,)),
        "9": SlurmState("PENDING", "QOSMaxGRESPerUser", living=True, expected=FIRST),
        "10": SlurmState("RUNNING", living=True),
    }
    show_status(tmp_path, plan_status(tmp_path, lambda ids: states))
    lines = capsys.readouterr().out.splitlines()
    cells = [" ".join(line.split()) for line in lines]
    assert cells[1] == "job state slurm time GPU-hours energy money"
    assert cells[2] == "train done 8 1:00:00 4.0 2.0 kWh 8.00 EUR loss 2.25 restarts 1"
    waiting = "a limit of the QOS is reached (QOSMaxGRESPerUser) starts about "
    assert cells[3].startswith(rf"├─ 'a\nb [red]' waiting 9 {waiting}")
    assert cells[4].startswith("└─ stuck running 10 ")
    assert cells[4].endswith("stalled: rank 3 on n1 is behind, in all_reduce")
    assert cells[5].startswith("3 jobs 1 done, 1 waiting, 1 running")
    assert cells[5].endswith("8.00 EUR")


def test_all_that_is_known_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_job(tmp_path, "job", resources={"gpus": 2})
    add_starts(folder, (0, None))
    add_receipt(folder, 1800)
    print_status_json(tmp_path, plan_status(tmp_path, lambda ids: {}))
    told = json.loads(capsys.readouterr().out)
    assert told["costs"]["gpu_hours"] == 1
    assert told["jobs"][0]["starts"][0]["ended"] == FIRST + 1800


@pytest.mark.parametrize("terminal", [False, True])
def test_a_live_table_ends_with_the_last_job_and_asks_seldom(
    tmp_path: Path,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_job(tmp_path, "job")
    write_json(folder.slurm, {"cluster": "here", "ids": ["7"]})
    asked: list[float] = []

    def states(ids: list[str]) -> dict[str, SlurmState]:
        asked.append(len(asked))
        if len(asked) == 2:
            raise MegatronJobsError("squeue: Socket timed out")
        return {
            "7": SlurmState("RUNNING" if len(asked) < 4 else "CANCELLED", living=len(asked) < 4)
        }

    console = Console(force_terminal=terminal, width=100)
    monkeypatch.setattr(status, "slurm_states", states)
    monkeypatch.setattr(status, "open_console", lambda: console)
    thread = threading.Thread(
        target=watch_status, args=(tmp_path,), kwargs={"every": 0.01, "ask_every": 0.1}
    )
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert len(asked) == 4
    printed = capsys.readouterr().out
    assert printed.rindex("cancelled") > printed.rindex("running")


def test_a_live_table_waits_for_slurm_to_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its controller is down from the first question on, and later once more."""
    folder = make_job(tmp_path, "job")
    write_json(folder.slurm, {"cluster": "here", "ids": ["7"]})
    down = MegatronJobsError("squeue: Unable to contact slurm controller; it is down")
    running = {"7": SlurmState("RUNNING", living=True)}
    answers = iter([down, down, running, down, {"7": SlurmState("CANCELLED")}])

    def states(ids: list[str]) -> dict[str, SlurmState]:
        answer = next(answers)
        if isinstance(answer, MegatronJobsError):
            raise answer
        return answer

    monkeypatch.setattr(status, "slurm_states", states)
    watch_status(tmp_path, every=0.01, ask_every=0.03)
    told = [line.split(maxsplit=2)[2] for line in capsys.readouterr().out.splitlines()]
    silent = "Slurm does not answer now (squeue: Unable to contact slurm controller)"
    assert told == [f"unknown  {silent}", "running", "cancelled  by hand"]
    assert next(answers, None) is None


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_tree_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    for name, after in (("ö first", []), ("a", ["ö first"]), ("b", ["ö first"]), ("c", ["a"])):
        make_job(tmp_path, name, after=after)
    words = [sys.executable, "-m", "megatron_jobs.cli", "status", str(tmp_path)]
    changes = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(words, capture_output=True, env=os.environ | changes, check=False)
    assert done.returncode == 0, done.stderr.decode()
    rows = done.stdout.decode(encoding).splitlines()[2:6]
    trees = [row.partition("  waiting")[0].rstrip() for row in rows]
    first = r"\xf6 first" if encoding == "ascii" else "ö first"
    if encoding == "utf-8":
        assert trees == [first, "├─ a", "│  └─ c", "└─ b"]
    else:
        assert trees == [first, "|- a", "|  `- c", "`- b"]


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("Resources", "no free nodes"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "nodes that it needs are down, drained or "
         "reserved (n[1-2])"),
        ("AssocGrpCpuLimit", "a limit of the account is reached (AssocGrpCpuLimit)"),
        ("JobHoldMaxRequeue", "was requeued as often as Slurm lets it: scontrol release"),
        ("SomethingNew", "SomethingNew"),
        ("", ""),
    ],
)  # fmt: skip
def test_reasons_in_plain_words(said: str, plain: str) -> None:
    assert plain_reason(said) == plain
