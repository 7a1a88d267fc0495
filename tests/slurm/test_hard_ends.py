"""Ends that leave no time, and a Slurm that answers too late or not at all, on a real Slurm."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.events import read_events
from megatron_jobs.jobs.plan import Plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.strikes import strike
from tests.slurm.test_going_on import (
    SLOW_ONCE,
    call,
    happened,
    plan_of,
    submit,
    wait_for_ranks,
    wait_for_state,
    wait_until_accounted,
)

pytestmark = pytest.mark.slow
TIMED_OUT = "error: slurm_receive_msg: Socket timed out on send/recv operation"
Wrap = Callable[..., dict[str, Any]]


@pytest.fixture
def wrapped(tmp_path: Path) -> Wrap:
    """Settings of a cluster on whose nodes some commands do their work and then say they failed."""

    def wrap(*names: str) -> dict[str, Any]:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in names:
            body = f'#!/bin/bash\n{shutil.which(name)} "$@" >/dev/null 2>&1\n'
            folder.joinpath(name).write_text(f"{body}echo '{name}: {TIMED_OUT}' >&2\nexit 1\n")
            folder.joinpath(name).chmod(0o755)
        path = f"{folder}:{os.environ['PATH']}"
        return {"environment": {"GLOO_SOCKET_IFNAME": "lo", "PATH": path}}

    return wrap


def batch_log(plan: Plan) -> str:
    return (plan.jobs["job"].folder.logs / "batch.log").read_text()


@pytest.fixture(scope="module")
def overstayer(module_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A job whose ranks ignore every signal, begun early: it only waits for its time limit."""
    resources = {"nodes": 2, "hours": 1 / 60}
    job = {"seconds": 600, "stubborn": True, "slow_once": True, "resources": resources}
    plan = plan_of(tmp_path_factory.mktemp("overstayer"), job=job, later={"reads": "@job/words"})
    submit(plan)
    return plan


@pytest.mark.usefixtures("overstayer")
def test_a_requeue_that_happens_though_it_seems_refused(tmp_path: Path, wrapped: Wrap) -> None:
    """And the squeue that then looks at the job is ended, as by a TERM just as it begins."""
    plan = plan_of(tmp_path, job=SLOW_ONCE)
    settings = wrapped("scontrol")
    squeue = tmp_path / "bin" / "squeue"
    said = f'said=$({shutil.which("squeue")} "$@") || exit'
    ends = f'[[ $said == COMPLETING* ]] && mkdir "{tmp_path}/ended" && kill -KILL $$'
    squeue.write_text(f'#!/bin/bash\n{said}\n{ends}\necho "$said"\n')
    squeue.chmod(0o755)
    ids = submit(plan, **settings)
    wait_for_ranks(plan)
    call("scancel", "--signal=USR2", ids["job"])
    wait_for_state(plan, "done")
    assert plan.jobs["job"].folder.slurm_ids() == [ids["job"]]  # no successor
    wait_until_accounted(ids["job"], "REQUEUED", "COMPLETED")
    assert happened(plan) == ["submit", "start", "stopped", "again", "start", "end"]
    assert (tmp_path / "ended").is_dir()


def test_a_successor_that_is_taken_though_it_seems_refused(tmp_path: Path, wrapped: Wrap) -> None:
    plan = plan_of(tmp_path, job=SLOW_ONCE)
    submit(plan, again="submit", **wrapped("sbatch"))
    wait_for_ranks(plan)
    first = plan.jobs["job"].folder.slurm_ids()[0]
    call("scancel", "--signal=USR2", first)
    wait_for_state(plan, "done")
    ids = plan.jobs["job"].folder.slurm_ids()
    assert len(ids) == 2
    assert happened(plan) == ["submit", "start", "stopped", "again", "again", "start", "end"]
    receipt = read_receipt(plan.jobs["job"].folder)
    assert receipt is not None
    assert receipt["slurm_job_ids"] == ids
    for slurm_id in ids:
        wait_until_accounted(slurm_id, "COMPLETED")
    began, ended = times(ids[1])[0], times(ids[0])[1]
    assert began >= ended  # never two at a time in one folder


def times(slurm_id: str) -> list[str]:
    """When a job began and ended."""
    return call("sacct", "-XnP", "-o", "Start,End", "-j", slurm_id).strip().split("|")


@pytest.mark.parametrize("again", ["requeue", "submit"])
def test_a_stranger_on_the_strike_list_keeps_no_other_in(tmp_path: Path, again: str) -> None:
    """Nodes that Slurm does not know any more would make it refuse the whole list."""
    strikes = tmp_path / "strikes"
    plan = plan_of(tmp_path, job=SLOW_ONCE)
    ids = submit(plan, again=again, strikes=str(strikes), sbatch={"exclude": "node[1-2]"})
    wait_for_ranks(plan)
    cluster = cluster_with(strikes)
    for node in ("node99", "node3"):
        strike(cluster, node, "test", plan.jobs["job"].folder)
    call("scancel", "--signal=USR2", ids["job"])
    wait_for_state(plan, "done")
    events = read_events(plan.jobs["job"].folder)
    nodes = [event["nodes"] for event in events if event["event"] == "start"]
    assert len(nodes) == 2
    assert not set(nodes[1]) & {"node1", "node2", "node3"}
    assert "node99 is not left out: Slurm does not know it" in batch_log(plan)


def test_no_more_nodes_are_left_out_than_the_job_can_spare(tmp_path: Path) -> None:
    strikes = tmp_path / "strikes"
    plan = plan_of(tmp_path, job=SLOW_ONCE)
    ids = submit(plan, strikes=str(strikes), sbatch={"exclude": "node1"})
    wait_for_ranks(plan)
    for node in ("node6", "node5", "node4", "node3"):  # two must be left of node2 to node6
        strike(cluster_with(strikes), node, "test", plan.jobs["job"].folder)
    call("scancel", "--signal=USR2", ids["job"])
    wait_for_state(plan, "done")
    starts = [e for e in read_events(plan.jobs["job"].folder) if e["event"] == "start"]
    assert starts[-1]["nodes"] == ["node2", "node6"]
    assert "node6 is not left out: too few nodes would remain" in batch_log(plan)


def cluster_with(strikes: Path) -> Cluster:
    return load_cluster("devcluster").model_copy(update={"strikes": str(strikes)})


def test_ranks_that_overstay_the_time_limit_are_gone_on_with(overstayer: Plan) -> None:
    """Slurm kills them together with the batch script."""
    folder = overstayer.jobs["job"].folder
    wait_for_state(overstayer, "done", "later", seconds=400)
    wait_until_accounted(folder.slurm_ids()[0], "REQUEUED", "COMPLETED")
    assert happened(overstayer) == ["submit", "start", "lost", "start", "end"]
    lost = read_events(folder)[2]
    assert lost["why"].startswith("its time limit came before it had saved")
    assert not lost["blameless"]
    assert "over its time limit: back in the queue" in batch_log(overstayer)
