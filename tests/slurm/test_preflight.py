"""Nodes that truly fail on a real Slurm are named, left out and struck (tests.stages.echo)."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.events import read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.preflight import KEPT_SECONDS
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.jobs.strikes import strike, struck
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import wait_for

pytestmark = pytest.mark.usefixtures("calm_nodes")


def plan_of(tmp_path: Path, name: str, **resources: int) -> Plan:
    """One echo job of two nodes."""
    job = {"stage": "tests.stages.echo", "resources": {"nodes": 2, "hours": 0.2} | resources}
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"jobs": {"job": job}}))
    return load_plan(str(path), [], tmp_path / name)


def cluster_of(tmp_path: Path, **preflight: Any) -> Cluster:
    """The devcluster with a scratch folder and a strike list of this test's own."""
    own = {
        "scratch": str(tmp_path / "scratch"),
        "strikes": str(tmp_path / "strikes.jsonl"),
        "preflight": {"links": False, "disk_gb": 0.1} | preflight,
    }
    return Cluster.model_validate(load_cluster("devcluster").model_dump() | own)


def submit(plan: Plan, cluster: Cluster) -> str:
    return dict(submit_plan(plan, cluster, dry_run=False))["job"]


def wait_until_done(plan: Plan, seconds: float = 300) -> None:
    done = lambda: plan_status(plan.run)[0]["state"] == "done"  # noqa: E731
    try:
        wait_for(done, "its end", seconds=seconds, every=0.3)
    except Exception as error:
        log = folder_of(plan).logs / "batch.log"
        words = log.read_text() if log.exists() else "no log"
        raise AssertionError(f"{error}: {plan_status(plan.run)}\n{words}") from error


def folder_of(plan: Plan) -> JobFolder:
    return plan.jobs["job"].folder


def verdicts(plan: Plan) -> list[dict[str, Any]]:
    return [event for event in read_events(folder_of(plan)) if event["event"] == "preflight"]


def hosts(plan: Plan) -> list[str]:
    """Where each rank ran last."""
    logs = folder_of(plan).rank_logs()
    return [log.read_text().splitlines()[-1].rpartition(" ")[2] for log in logs]


def slurmd_of(node: str) -> int:
    """The process id of a node's slurmd."""
    run = Path(os.environ["SLURM_CONF"]).parents[1] / "run"
    return int((run / f"slurmd.{node}.pid").read_text())


def full_disk(node: str, folder: Path) -> AbstractContextManager[None]:
    """Only there a file system of 64 KiB lies over the folder."""
    folder.mkdir(exist_ok=True)
    return mounted(node, folder, "-t", "tmpfs", "-o", "size=64k", "none")


def endless_read(node: str, file: Path, pipe: Path) -> AbstractContextManager[None]:
    """Only there whoever opens the file waits for ever, as for a file server that is gone."""
    os.mkfifo(pipe)
    return mounted(node, file, "--bind", str(pipe))


@contextmanager
def mounted(node: str, place: Path, *what: str) -> Iterator[None]:
    """Each node has mounts of its own."""
    inside = ["nsenter", "-t", str(slurmd_of(node)), "-m"]
    if subprocess.run(
        [*inside, "mount", *what, str(place)], capture_output=True, check=False
    ).returncode:
        pytest.skip("nothing can be mounted here for one node")
    try:
        yield
    finally:
        subprocess.run([*inside, "umount", str(place)], check=True)


def test_a_spare_takes_the_place_of_a_bad_node_and_nobody_is_given_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = cluster_of(tmp_path)
    strike(cluster, "node99", "Slurm no longer has it", JobFolder(tmp_path))
    plan = plan_of(tmp_path, "first", spare_nodes=1, ranks=2)
    with full_disk("node1", tmp_path / "scratch"):
        submit(plan, cluster)
        wait_until_done(plan)
    cause = f"{tmp_path}/scratch: 0.00 GiB are free, 0.1 GiB are wanted"
    assert [event["bad"] for event in verdicts(plan)] == [{"node1": cause}]
    assert hosts(plan) == ["node2", "node2", "node3", "node3"]
    assert struck(cluster)["node1"] == f"preflight: {cause}"
    log = (folder_of(plan).logs / "batch.log").read_text()
    assert f"preflight: node1 {cause}\npreflight: 2 nodes are used, without node1\n" in log

    second = plan_of(tmp_path, "second")
    submit(second, cluster)
    assert "#SBATCH --exclude=node1\n" in (folder_of(second).path / "sbatch.sh").read_text()
    assert "node1 is left out, it is on the strike list: preflight: " in capsys.readouterr().err
    wait_until_done(second)
    assert hosts(second) == ["node2", "node3"]


def test_without_spares_the_job_goes_on_elsewhere(tmp_path: Path) -> None:
    cluster = cluster_of(tmp_path)
    plan = plan_of(tmp_path, "run", gpus=1)
    with full_disk("node2", tmp_path / "scratch"):
        slurm_id = submit(plan, cluster)
        wait_until_done(plan)
    assert [list(event["bad"]) for event in verdicts(plan)] == [["node2"], []]
    assert "node2" not in hosts(plan)
    again = [event for event in read_events(folder_of(plan)) if event["event"] == "again"]
    assert [event["exclude"] for event in again] == [["node2"]]
    assert folder_of(plan).slurm_ids() == [slurm_id]
    answer = json.loads((folder_of(plan).preflight / f"{hosts(plan)[0]}.json").read_text())
    assert answer["facts"]["gpus"] == "not looked at: there is no nvidia-smi here"


def test_a_node_that_hangs_is_named_in_time(tmp_path: Path) -> None:
    """It is held at a file of the code, and there stopped: Python, and what is to end it."""
    cluster = cluster_of(tmp_path, links=True, seconds=40)
    cluster = cluster.model_copy(update={"sbatch": cluster.sbatch | {"hold": True}})
    plan = plan_of(tmp_path, "run", spare_nodes=1)
    slurm_id = submit(plan, cluster)
    (code,) = plan.run.glob(".code/*/megatron_jobs/parallel/pairs.py")
    with endless_read("node2", code, tmp_path / "pipe"):
        subprocess.run(["scontrol", "release", slurm_id], check=True)
        wait_for(lambda: stop_pairs_of("node2", plan.run), "its processes", seconds=180, every=0.1)
        wait_until_done(plan)
    (verdict,) = verdicts(plan)
    assert list(verdict["bad"]) == verdict["silent"] == ["node2"]
    limit = re.fullmatch(r"did not answer within (\d+) s", verdict["bad"]["node2"])
    assert limit is not None
    assert 40 * 2 / 3 - KEPT_SECONDS <= int(limit.group(1)) < 40
    assert struck(cluster) == {}
    assert (
        verdict["seconds"] < 60
    )  # 38 on an idle machine, 40.5 on a busy one; else it hangs for ever
    assert hosts(plan) == ["node1", "node3"]
    trials = json.loads((folder_of(plan).preflight / "pairs" / "node1.json").read_text())["trials"]
    assert {trial["partner"]: trial["good"] for trial in trials} == {"node2": False, "node3": True}


def stop_pairs_of(node: str, run: Path) -> bool:
    """Stop every process that tries the links of a node; whether Python was one of them.

    While only the `timeout` that starts it is there, nothing is stopped: Python would go on alone.
    """
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes()
            there = f"SLURMD_NODENAME={node}".encode() in (place / "environ").read_bytes()
            if there and b"--pairs=" in words and str(run).encode() in words:
                found[int(place.name)] = (place / "exe").resolve().name
        except OSError:
            continue
    if not any(program.startswith("python") for program in found.values()):
        return False
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    return True
