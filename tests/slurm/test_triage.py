"""A killed rank, and jobs that are stopped by hand, on a real Slurm."""

import subprocess
from pathlib import Path

import pytest
import yaml

from megatron_jobs.cli import main
from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.events import read_events
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import wait_for

QUICK = {"nodes": False, "links": False}


def submitted(tmp_path: Path, max_restarts: int = 50, **job: object) -> Plan:
    """One job of echo on two nodes of two ranks, and one that waits for it."""
    one = {"stage": "tests.stages.echo", "resources": {"nodes": 2, "ranks": 2, "hours": 0.2}}
    jobs = {"job": one | job, "next": {"stage": "tests.stages.echo", "after": ["job"]}}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": jobs}))
    plan = load_plan(str(path), [], tmp_path / "run")
    cluster = load_cluster("devcluster")
    preflight = cluster.preflight.model_copy(update=QUICK)
    changes = {"max_restarts": max_restarts, "preflight": preflight}
    submit_plan(plan, cluster.model_copy(update=changes), dry_run=False)
    return plan


def states(plan: Plan) -> list[str]:
    return [record["state"] for record in plan_status(plan.run)]


def wait_for_states(plan: Plan, *wanted: str) -> None:
    try:
        wait_for(lambda: states(plan) == list(wanted), f"{wanted}", seconds=180, every=0.2)
    except Exception as error:
        raise AssertionError(f"{error}: {plan_status(plan.run)}") from error


@pytest.mark.usefixtures("calm_nodes")
def test_a_killed_rank_is_the_cause_not_those_that_srun_ends(tmp_path: Path) -> None:
    plan = submitted(tmp_path, max_restarts=0, trouble="kill", guilty=3)
    wait_for_states(plan, "failed", "cancelled")
    folder = plan.jobs["job"].folder
    failed = next(event for event in read_events(folder) if event["event"] == "failed")
    assert (failed["kind"], failed["rank"], failed["node"]) == ("killed", 3, "node2")
    text = folder.postmortem.read_text()
    assert "- **cause**: Killed\n- **where**: rank 3 on node2\n" in text
    assert "    srun: error: node2: task 3: Killed\n" in text
    assert "- **decision**: it stops: after 0 restarts not put back in the queue" in text


def test_stopped_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It saves, is not put back in the queue, and is not begun again before the switch is gone."""
    plan = submitted(tmp_path, seconds=600)
    folder = plan.jobs["job"].folder
    wait_for(lambda: all(folder.log(rank).exists() for rank in range(4)), "the ranks", seconds=180)
    wait_for(lambda: all(folder.log(r).read_text() for r in range(4)), "their words", seconds=180)
    assert main(["stop", str(plan.run), "job"]) == 0
    slurm_id = folder.slurm_ids()[-1]
    assert f"job: saves and stops, Slurm has told {slurm_id}" in capsys.readouterr().out
    wait_for_states(plan, "stopped", "cancelled")
    assert (folder.path / "saved").exists()
    assert "KILL is there" in str(plan_status(plan.run)[0]["reason"])
    assert read_events(folder)[-1]["event"] == "stop"
    asked = ["sacct", "-DXn", "--format=State", "-j", slurm_id]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "REQUEUED" not in told
    with pytest.raises(Exception, match="KILL is there; remove it, or: mj resubmit"):
        submit_plan(plan, load_cluster("devcluster"), dry_run=False)
    assert main(["resubmit", str(plan.run), "--dry-run"]) == 0
    assert folder.kill_switch.exists()


def test_stopped_before_it_began(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is there to be told; when its turn comes it does not begin."""
    hold = tmp_path / "hold"
    hold.touch()
    plan = submitted(tmp_path, hold=str(hold))
    wait_for(lambda: states(plan)[0] == "running", "the first", seconds=180)
    assert main(["stop", str(plan.run), "next"]) == 0
    hold.unlink()
    assert "Slurm has told" not in capsys.readouterr().out
    wait_for_states(plan, "done", "stopped")
    folder = plan.jobs["next"].folder
    assert not folder.rank_logs()
    assert "KILL is there" in read_events(folder)[-1]["why"]
