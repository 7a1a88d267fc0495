"""Real stages over two nodes leave what they leave on this machine."""

from pathlib import Path

from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.local import run_plan
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import wait_for

BOOKS = Path(__file__).parents[2] / "megatron_jobs" / "plans" / "books.jsonl"
PLAN = f"""
jobs:
  tokenizer:
    stage: tokenizer
    input: ["{BOOKS}"]
    vocab_size: 1024
  tokenize:
    stage: tokenize
    input: ["{BOOKS}"]
    tokenizer: "@tokenizer/tokenizer"
    parts: 6
    resources: {{nodes: 2, ranks: 2}}
  index:
    stage: index
    tokens: [{{path: "@tokenize/tokens"}}]
    seq_len: 128
"""


def states(plan: Plan) -> set[str]:
    return {record["state"] for record in plan_status(plan.run)}


def test_receipts_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    far, near = (load_plan(str(path), [], tmp_path / name) for name in ("far", "near"))
    submit_plan(far, load_cluster("devcluster"), dry_run=False)
    run_plan(near)
    wait_for(lambda: not states(far) & {"waiting", "running"}, "the jobs", seconds=300, every=0.3)
    assert states(far) == {"done"}, plan_status(far.run)
    for name in far.jobs:
        there, here = (read_receipt(plan.jobs[name].folder) for plan in (far, near))
        assert there is not None
        assert here is not None
        for part in ("key", "inputs", "outputs", "numbers", "ranks"):
            assert there[part] == here[part], (name, part)
        assert there["slurm_job_ids"]
        assert not here["slurm_job_ids"]
