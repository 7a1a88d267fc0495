"""Training over two nodes, stopped and put back in the queue, equals training here in one go."""

import subprocess
from pathlib import Path

import pytest

from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.local import run_plan
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import wait_for
from megatron_jobs.runtime.journal import read_journal
from tests.slurm.conftest import nothing_starts

BOOKS = Path(__file__).parents[2] / "megatron_jobs" / "plans" / "books.jsonl"
STEPS = 16
PLAN = f"""
jobs:
  tokenizer: {{stage: tokenizer, input: ["{BOOKS}"], vocab_size: 512}}
  tokenize: {{stage: tokenize, input: ["{BOOKS}"], tokenizer: "@tokenizer/tokenizer"}}
  index:
    stage: index
    tokens: [{{path: "@tokenize/tokens"}}]
    seq_len: 64
    train_samples: {STEPS * 8}
    valid_samples: 8
  pretrain:
    stage: STAGE
    resources: {{nodes: 2, ranks: 2}}
    index: "@index/index"
    model: {{preset: llama-tiny}}
    mesh: {{tensor: 2}}
    batch: {{global_size: 8, micro_size: 4}}
    optim: {{lr: 3e-3, min_lr: 3e-4, warmup_steps: 4}}
    precision: fp32
    steps: {STEPS}
    evaluate_every: {STEPS}
    save_every: {STEPS}
"""


def losses(plan: Plan) -> list[tuple[int, float]]:
    records = read_journal(plan.jobs["pretrain"].folder.path / "metrics.jsonl")
    return [(record["step"], record["loss"]) for record in records if record["kind"] == "train"]


def states(plan: Plan) -> list[str]:
    return [record["state"] for record in plan_status(plan.run)]


@pytest.mark.slow
def test_stopped_and_put_back_it_equals_a_local_run(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN.replace("STAGE", "pretrain"))
    near = load_plan(str(path), [], tmp_path / "near")
    path.write_text(PLAN.replace("STAGE", "tests.stages.paced") + f"    slow_steps: {STEPS // 2}\n")
    far = load_plan(str(path), [], tmp_path / "far")
    ids = dict(submit_plan(far, load_cluster("devcluster"), dry_run=False))
    wait_for(lambda: len(losses(far)) >= 2, f"two steps: {states(far)}", seconds=300, every=0.2)
    with nothing_starts():
        subprocess.run(["scancel", "--signal=USR2", ids["pretrain"]], check=True)
        wait_for(lambda: states(far)[-1] == "waiting", "the requeue", seconds=180, every=0.2)
        stopped_at = losses(far)[-1][0]
    run_plan(near)
    wait_for(lambda: states(far)[-1] not in ("waiting", "running"), "the end", seconds=300)
    assert states(far) == ["done"] * 4, plan_status(far.run)
    assert 2 <= stopped_at < STEPS
    assert [step for step, _ in losses(far)] == list(range(1, STEPS + 1))
    assert losses(far) == losses(near)
    record = plan_status(far.run)[-1]
    assert (record["slurm_id"], record["restarts"]) == (ids["pretrain"], 1)
