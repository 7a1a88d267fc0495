"""Plans on a real Slurm (stage: tests.stages.echo, no torch)."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import cancel_run, log_files, plan_status
from megatron_jobs.jobs.submit import SKIPPED, submit_plan
from megatron_jobs.runtime.files import wait_for
from tests.slurm.conftest import nothing_starts

HOSTILE = """a 'run' "of" $HOME `id` #1; ü\n--help\n"""
TWO_BY_TWO = {"nodes": 2, "ranks": 2, "hours": 0.2}
Entries = dict[str, dict[str, Any]]


def plan_of(tmp_path: Path, entries: Entries, run: str = "run") -> Plan:
    """A plan of echo jobs on 2 nodes x 2 ranks."""
    jobs = {
        name: {"stage": "tests.stages.echo", "resources": TWO_BY_TWO} | entry
        for name, entry in entries.items()
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": jobs}, allow_unicode=True))
    return load_plan(str(path), [], tmp_path / run)


def submit(plan: Plan, **changes: Any) -> dict[str, str]:
    cluster = load_cluster("devcluster").model_copy(update=changes)
    return dict(submit_plan(plan, cluster, dry_run=False))


def status(plan: Plan) -> dict[str, dict[str, Any]]:
    return {record["job"]: record for record in plan_status(plan.run)}


def states(plan: Plan) -> list[str]:
    return [record["state"] for record in plan_status(plan.run)]


def wait_until(holds: Callable[[], bool], plan: Plan, seconds: float = 240) -> None:
    try:
        wait_for(holds, "a state", seconds=seconds, every=0.2)
    except Exception as error:
        raise AssertionError(f"{error}: {plan_status(plan.run)}") from error


def wait_for_states(plan: Plan, *wanted: str) -> None:
    wait_until(lambda: states(plan) == list(wanted), plan)


def log_of(plan: Plan, job: str, rank: int) -> str:
    path = plan.jobs[job].folder.log(rank)
    return path.read_text() if path.exists() else ""


def accounted(slurm_id: str, field: str) -> list[str]:
    """A field of each start of a Slurm job, as sacct has it."""
    asked = ["--duplicates", "--allocations", "--noheader", "--parsable2"]
    command = ["sacct", *asked, f"--format={field}", f"--jobs={slurm_id}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.usefixtures("calm_nodes")
def test_a_plan_runs_over_two_nodes_whatever_its_names(tmp_path: Path) -> None:
    first, second = "the 'first' $one\n", 'and "then" # two'
    entries = {first: {}, second: {"reads": f"@{first}/words", "text": "world"}}
    plan = plan_of(tmp_path, entries, run=HOSTILE)
    ids = submit(plan)
    wait_for_states(plan, "done", "done")

    for name, slurm_id in ids.items():
        folder = plan.jobs[name].folder
        wait_until(lambda i=slurm_id: accounted(i, "State") == ["COMPLETED"], plan)
        receipt = read_receipt(folder)
        assert receipt is not None
        assert receipt["slurm_job_ids"] == [slurm_id]
        assert receipt["numbers"] == {"ranks": 4, "nodes": 2}
        hosts = [log_of(plan, name, rank) for rank in range(4)]
        assert hosts == [f"rank {i} of 4 on node{1 + i // 2}\n" for i in range(4)]
        assert log_files(plan.run, name, None)[0].name == "batch.log"
        assert (folder.path / "sbatch.sh").read_text() in stored_script(slurm_id)
    words = plan.jobs[second].folder.path / "words" / "3.txt"
    assert words.read_text() == "hello\nworld\n"
    assert accounted(ids[first], "End") <= accounted(ids[second], "Start")
    assert [record["job"] for record in plan_status(plan.run)] == [first, second]

    assert submit(plan) == {first: SKIPPED, second: SKIPPED}
    shutil.rmtree(plan.jobs[second].folder.path / "words")
    again = submit(plan)
    assert again[first] == SKIPPED
    assert again[second] not in (SKIPPED, ids[second])
    cancel_run(plan.run, [])


def stored_script(slurm_id: str) -> str:
    command = ["scontrol", "write", "batch_script", slurm_id, "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("calm_nodes")
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("bug", "rank 3 on node2: ZeroDivisionError: a planted bug ("),
        ("user", "rank 3 on node2: text: 'hello' is too friendly; say less; see"),
        ("kill", "rank 3 on node2: Killed; see"),
    ],
)
def test_a_failing_rank_ends_the_job_and_is_named(tmp_path: Path, trouble: str, words: str) -> None:
    entries: Entries = {"bad": {"trouble": trouble, "guilty": 3}, "next": {"after": ["bad"]}}
    plan = plan_of(tmp_path, entries)
    submit(plan, max_restarts=0)
    wait_until(lambda: "waiting" not in states(plan) and "running" not in states(plan), plan)
    found = status(plan)
    assert found["bad"]["state"] == "failed"
    assert found["bad"]["reason"].startswith(words)
    assert found["bad"]["reason"].endswith(str(plan.jobs["bad"].folder.log(3)))
    assert found["next"]["state"] == "cancelled"
    assert found["next"]["reason"] == "needs bad, which did not end well"
    assert read_receipt(plan.jobs["bad"].folder) is None


def test_cancel(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"long": {"seconds": 600}, "next": {"after": ["long"]}})
    ids = submit(plan)
    wait_for_states(plan, "running", "waiting")
    assert status(plan)["next"]["reason"] == "after long"
    with pytest.raises(UserError, match="long: already submitted, as Slurm job"):
        submit(plan)
    with pytest.raises(UserError, match="no such job: 'lang'; did you mean long"):
        cancel_run(plan.run, ["lang"])
    assert cancel_run(plan.run, ["long"]) == [("long", ids["long"])]
    wait_for_states(plan, "cancelled", "cancelled")
    assert status(plan)["long"]["reason"] == "by hand"
    assert cancel_run(plan.run, []) == []


def test_a_stopped_job_goes_on_after_a_requeue(tmp_path: Path) -> None:
    """The leader saves for longer than srun leaves ranks alive after one has failed."""
    plan = plan_of(tmp_path, {"job": {"seconds": 600, "slow_once": True, "saving": 4}})
    ids = submit(plan)
    wait_until(lambda: all(log_of(plan, "job", rank) for rank in range(4)), plan)
    with nothing_starts():
        subprocess.run(["scancel", "--signal=USR2", ids["job"]], check=True)
        wait_for_states(plan, "waiting")
    wait_for_states(plan, "done")
    assert (plan.jobs["job"].folder.path / "saved").exists()
    for rank in range(4):
        lines = log_of(plan, "job", rank).splitlines()
        assert lines == [lines[0], "stopped: by SIGUSR2", lines[2], lines[0]]
        assert lines[2].startswith(f"--- goes on: rank {rank} of 4 on node")
    wait_until(lambda: accounted(ids["job"], "State") == ["REQUEUED", "COMPLETED"], plan)
    assert status(plan)["job"]["restarts"] == 1


def test_a_job_is_not_put_back_for_ever(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"job": {"seconds": 600}})
    ids = submit(plan, max_restarts=0)
    wait_until(lambda: all(log_of(plan, "job", rank) for rank in range(4)), plan)
    subprocess.run(["scancel", "--signal=USR2", ids["job"]], check=True)
    wait_for_states(plan, "stopped")
    assert "after 0 restarts not put back in the queue" in status(plan)["job"]["reason"]
    wait_until(lambda: accounted(ids["job"], "ExitCode") == ["75:0"], plan)


@pytest.mark.usefixtures("calm_nodes")
def test_a_job_that_lost_its_node_is_not_at_its_end(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"job": {"seconds": 600, "slow_once": True}})
    ids = submit(plan)
    wait_until(lambda: all(log_of(plan, "job", rank) for rank in range(4)), plan)
    node = "nodename=node2"
    with nothing_starts():
        subprocess.run(["scontrol", "update", node, "state=down", "reason=test"], check=True)
        wait_for_states(plan, "waiting")
        subprocess.run(["scontrol", "update", node, "state=resume"], check=True)
    wait_for_states(plan, "done")
    wait_until(lambda: accounted(ids["job"], "State") == ["NODE_FAIL", "COMPLETED"], plan)


def test_what_slurm_refuses_is_said_before_anything_is_submitted(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"small": {}, "big": {"resources": TWO_BY_TWO | {"nodes": 9}}})
    with pytest.raises(UserError) as caught:
        submit(plan)
    assert str(caught.value) == (
        "big: asked for 9 nodes x 2 ranks x 1 cpus, 0 gpus, 0.2 h in partition main of devcluster; "
        "refused: the partition has fewer nodes (Slurm: Node count specification invalid)"
    )
    assert not plan.run.exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partition": "mian"}, "there is no such partition (Slurm: invalid partition specified"),
        ({"account": "nobody"}, "the account may not use the partition (Slurm: Invalid account"),
        ({"qos": "best"}, "the account may not use that QOS (Slurm: Invalid qos specification)"),
        ({"sbatch": {"constraint": "ib"}}, "no node has what the constraint names (Slurm: Invalid"),
        ({"gpu_type": "b300"}, "no node has that many CPUs, GPUs or memory (Slurm: Requested"),
        ({"partition": "debug"}, "no node"),
    ],
)
def test_refusals_are_in_plain_words(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    asked = TWO_BY_TWO | {"nodes": 1, "gpus": 1}
    if changes.get("partition") == "debug":
        asked |= {"hours": 1}
        words = "the time limit is over the partition's"
    plan = plan_of(tmp_path, {"job": {"resources": asked}})
    cluster = Cluster.model_validate(load_cluster("devcluster").model_dump() | changes)
    with pytest.raises(UserError) as caught:
        submit_plan(plan, cluster, dry_run=False)
    assert f"refused: {words}" in str(caught.value)


def test_slurm_keeps_count_of_gpus(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"job": {"resources": TWO_BY_TWO | {"gpus": 3}}})
    ids = submit(plan)
    wait_for_states(plan, "done")
    wait_until(lambda: bool(accounted(ids["job"], "AllocTRES")), plan)
    given = dict(part.split("=") for part in accounted(ids["job"], "AllocTRES")[0].split(","))
    assert given["gres/gpu"] == "6"
    assert given["node"] == "2"
    assert json.loads(plan.jobs["job"].folder.slurm.read_text())["cluster"] == "devcluster"
