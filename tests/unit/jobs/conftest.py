"""A plan of two jobs, for those that have none of their own."""

from pathlib import Path

import pytest

from megatron_jobs.jobs.plan import Plan, load_plan

PLAN = """
jobs:
  first:
    stage: tests.stages.echo
    resources: {nodes: 3, ranks: 4, cpus: 2, gpus: 4, memory_gb: 1.5, hours: 0.51}
  second:
    stage: tests.stages.echo
    reads: "@first/words"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return load_plan(str(path), [], tmp_path / "run")
