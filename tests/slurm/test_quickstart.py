"""The shipped quickstart through Slurm, its training over two nodes, leaves what it leaves here."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.cli import main
from megatron_jobs.jobs.local import run_plan
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.runtime.files import wait_for
from megatron_jobs.runtime.journal import read_journal

PROFILE = Path(__file__).parents[2] / "slurm/clusters/devcluster.yaml"
WORDS = ["pretrain.steps=8", "pretrain.evaluate_every=4", "index.train_samples=640"]
TWO_NODES = ["pretrain.resources.nodes=2", "pretrain.resources.ranks=2"]
EXACT = ("tokenizer", "tokenize", "index")
"""Jobs whose outputs are equal to the byte; checkpoints hold Python's pickles, whose bytes vary."""


def states(plan: Plan) -> set[str]:
    return {record["state"] for record in plan_status(plan.run)}


def receipt(plan: Plan, name: str) -> dict[str, Any]:
    found = read_receipt(plan.jobs[name].folder)
    assert found is not None, plan_status(plan.run)
    return found


def losses(plan: Plan) -> list[tuple[str, int, float]]:
    records = read_journal(plan.jobs["pretrain"].folder.path / "metrics.jsonl")
    return [(record["kind"], record["step"], record["loss"]) for record in records]


@pytest.mark.slow
def test_every_job_completes_and_receipts_are_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = "plans/quickstart.yaml"
    far_words = ["--run", str(tmp_path / "far"), "--cluster", str(PROFILE)]
    assert main(["submit", plan, *WORDS, *TWO_NODES, *far_words]) == 0
    ids = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()[:7]]
    far = load_plan(plan, WORDS + TWO_NODES, tmp_path / "far")
    near = load_plan(plan, WORDS, tmp_path / "near")
    run_plan(near)  # beside the other
    wait_for(lambda: not states(far) & {"waiting", "running"}, "the jobs", seconds=600, every=0.5)

    assert states(far) == {"done"}, plan_status(far.run)
    command = ["sacct", "-nPX", "-o", "State", "-j", ",".join(ids)]
    told = lambda: subprocess.check_output(command, text=True).split()  # noqa: E731
    wait_for(lambda: told() == ["COMPLETED"] * 7, "the accounting", seconds=60, every=0.3)
    for name in far.jobs:
        there, here = receipt(far, name), receipt(near, name)
        assert there["slurm_job_ids"] == [ids[list(far.jobs).index(name)]]
        assert set(there["outputs"]) == set(here["outputs"])
        if name in EXACT:
            assert [there[part] for part in ("key", "inputs", "outputs")] == [
                here[part] for part in ("key", "inputs", "outputs")
            ]
    assert receipt(far, "pretrain")["key"] == receipt(near, "pretrain")["key"]
    assert receipt(far, "evaluate")["numbers"] == receipt(near, "evaluate")["numbers"]
    assert losses(far) == losses(near)
    assert len(losses(far)) == 10
    logs = far.jobs["pretrain"].folder.logs
    assert sorted(path.name for path in logs.glob("rank-*.log")) == [
        f"rank-{rank:05}.log" for rank in range(4)
    ]
    assert main(["logs", str(far.run), "pretrain", "--rank", "0"]) == 0
