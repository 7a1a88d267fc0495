"""Sixteen tasks of a pass over records, some killed at random: nothing is lost, nothing doubled."""

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from megatron_jobs.cli import main
from megatron_jobs.jobs.local import run_plan
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.runtime.files import wait_for
from megatron_jobs.stages.documents import OUTPUTS
from tests.slurm.test_arrays import cluster_of_tests

TASKS = 16
KILLS = 6
DOCUMENTS = 4000


def corpus(folder: Path) -> Path:
    """One text in nine is empty, one line in fifty no record; cut into some forty units."""
    lines = []
    for i in range(DOCUMENTS):
        text = "" if i % 9 == 0 else f"Document {i} of the corpus. " * (1 + i % 7)
        lines.append("{" if i % 50 == 49 else json.dumps({"id": str(i), "text": text}))
    path = folder / "corpus.jsonl"
    path.write_text("\n".join(lines))
    return path


def plan_of(folder: Path, run: str, *, tasks: int, **settings: Any) -> Plan:
    shorten = {"stage": "tests.stages.shorten", "input": [str(folder / "corpus.jsonl")]}
    shorten |= {"unit_mb": 0.01, "letters": 40} | settings
    shorten |= {"resources": {"tasks": tasks, "hours": 0.1}}
    path = folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump({"jobs": {"shorten": shorten}}))
    return load_plan(str(path), [], folder / run)


def running_tasks() -> list[str]:
    command = ["squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [task for task in done.stdout.split() if "_" in task]


def kill_some(draw: random.Random) -> list[str]:
    """Kill -9 all processes of tasks that run, one after the other."""
    killed: list[str] = []
    while len(killed) < KILLS:
        wait_for(lambda: bool(set(running_tasks()) - {*killed}), "a task that runs", seconds=180)
        time.sleep(draw.random())
        task = draw.choice(sorted({*running_tasks()} - {*killed}))
        subprocess.run(["scancel", "--signal=KILL", "--full", task], check=True)
        killed.append(task)
    return killed


def state_of(plan: Plan) -> str:
    return str(plan_status(plan.run)[0]["state"])


def test_killed_tasks_are_made_good(tmp_path: Path) -> None:
    corpus(tmp_path)
    near = plan_of(tmp_path, "near", tasks=1)
    run_plan(near)

    hold = tmp_path / "hold"
    hold.touch()
    held = {"hold": str(hold), "held_at": DOCUMENTS // TASKS // 2}
    far = plan_of(tmp_path, "far", tasks=TASKS, pause=0.02, **held)
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(yaml.safe_dump(cluster_of_tests().model_dump(mode="json")))
    words = [str(tmp_path / "far.yaml"), "--cluster", str(cluster), "--run", str(far.run)]
    assert main(["submit", *words]) == 0
    killed = kill_some(random.Random(4))  # none is through before it is released
    hold.unlink()
    ended = ("done", "failed", "cancelled", "stopped")
    wait_for(lambda: state_of(far) in ended, "the end", seconds=240, every=0.02)
    states = plan_status(far.run)[0]["tasks"]
    assert state_of(far) != "done", (killed, states)
    assert main(["resubmit", str(far.run)]) == 0
    wait_for(lambda: state_of(far) == "done", "the end", seconds=240, every=0.5)

    here, there = (read_receipt(plan.jobs["shorten"].folder) for plan in (near, far))
    assert here is not None
    assert there is not None
    for name in OUTPUTS:
        assert here["outputs"][name] == there["outputs"][name], name
    numbers = there["numbers"]
    assert numbers["records_in"] == DOCUMENTS
    parts = ("documents", "rejected", "quarantined")
    assert [numbers[part] for part in parts] == [here["numbers"][part] for part in parts]
    assert sum(numbers[part] for part in parts) == DOCUMENTS
