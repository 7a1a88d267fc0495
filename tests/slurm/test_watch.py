"""A hung, a stopped and a slow rank on a real Slurm, each named by the watch."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.config.site import Preflight
from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.events import read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.inquiry import rank_states
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.status import cancel_run, plan_status
from megatron_jobs.jobs.stragglers import read_stragglers
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import read_json, wait_for
from megatron_jobs.runtime.heartbeat import starts_on_node
from tests.stages.hang import SILENCE

HANG = Path(__file__).parents[1] / "stages" / "hang.py"
STALL_SECONDS = 4


def submitted(
    tmp_path: Path,
    *,
    gpus: int = 0,
    sbatch: dict[str, Any] | None = None,
    stall_seconds: int = STALL_SECONDS,
    **settings: Any,
) -> Plan:
    """A job of the stage `hang` on 2 nodes x 2 ranks that is looked at each second."""
    resources = {"nodes": 2, "ranks": 2, "gpus": gpus, "hours": 0.2}
    job = {"stage": "tests.stages.hang", "resources": resources} | settings
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": {"job": job}}))
    plan = load_plan(str(path), [], tmp_path / "run")
    cluster = load_cluster("devcluster")
    looks = {"every": 1, "stall_seconds": stall_seconds, "straggler": 2.0}
    watch = cluster.watch.model_copy(update=looks)
    changes = {"watch": watch, "preflight": Preflight(nodes=bool(sbatch), links=False)}
    changes |= {"sbatch": cluster.sbatch | (sbatch or {})}
    submit_plan(plan, cluster.model_copy(update=changes), dry_run=False)
    return plan


def stall_of(plan: Plan) -> dict[str, Any]:
    """The event of the stall, once there is one."""
    folder = plan.jobs["job"].folder

    def stalls() -> list[dict[str, Any]]:
        return [event for event in read_events(folder) if event["event"] == "stall"]

    try:
        wait_for(lambda: bool(stalls()), "a stall", seconds=240, every=0.1)
    except Exception as error:
        raise AssertionError(f"{error}: {plan_status(plan.run)} {logs_of(folder)}") from error
    return stalls()[0]


def logs_of(folder: JobFolder) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.logs.glob("*.log")))


def happened(folder: JobFolder) -> list[str]:
    return [event["event"] for event in read_events(folder)]


def nodes_of(folder: JobFolder) -> list[str]:
    """The nodes of the first start: ranks 0 and 1 are on the first, 2 and 3 on the second."""
    return list(next(event["nodes"] for event in read_events(folder) if event["event"] == "start"))


def nothing_left(folder: JobFolder) -> bool:
    """Whether no node holds a file of the job's ranks any more."""
    hosts = [*(f"node{n}" for n in range(1, 7)), "node6.dev"]
    return not any(starts_on_node(folder.path, host=host) for host in hosts)


def line_of(words: str) -> int:
    """The number of a line of the stage."""
    lines = HANG.read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if words in line)


def state_of(plan: Plan) -> str:
    return str(plan_status(plan.run)[0]["state"])


def test_a_hung_rank_is_named_in_time_and_the_job_goes_on(tmp_path: Path) -> None:
    plan = submitted(tmp_path, trouble="sleep")
    folder = plan.jobs["job"].folder
    stall = stall_of(plan)
    verdict = read_json(folder.watch / "verdict.json")
    place = f"tests/stages/hang.py:{line_of('time.sleep(SILENCE)')} read"
    first, second = nodes_of(folder)
    assert (stall["rank"], stall["node"], stall["step"]) == (2, second, 3)
    assert stall["where"] == place
    assert verdict["state"] == ""
    assert verdict["kind"] == "stall"
    assert stall["line"] == (
        f"stalled {verdict['seconds']:.0f} s: rank 2 on {second} is behind: step 3, in data, "
        f"{place}; the other 3 wait in all_reduce"
    )
    assert STALL_SECONDS <= verdict["seconds"] < SILENCE / 5
    assert stall["line"] in (folder.logs / "watch.log").read_text()
    stacks = (folder.path / verdict["stacks"]).read_text()
    assert f"1 rank: 2 on {second}; step 3, in data" in stacks
    assert f"3 ranks: 0-1,3 on 2 nodes, the first is {first}; step 3, in agree" in stacks
    assert f'{HANG}", line {line_of("time.sleep(SILENCE)")} in read' in stacks
    wait_for(lambda: happened(folder)[-1] == "end", "the second start", seconds=240, every=0.2)
    assert happened(folder) == ["submit", "start", "stall", "failed", "again", "start", "end"]
    failed = next(event for event in read_events(folder) if event["event"] == "failed")
    assert failed["time"] - stall["time"] < SILENCE / 5  # the rank had meant to sleep on
    wait_for(lambda: state_of(plan) == "done", "its end", seconds=60, every=0.2)
    assert nothing_left(folder)
    assert (folder.path / "sum.txt").read_text() == f"{expected_sum(4, 10)}\n"


def expected_sum(world: int, steps: int) -> float:
    """What `hang` adds up, by its own definition."""
    total = 0.0
    for _ in range(steps):
        total = world * (total + 1)
    return total


def test_a_stopped_rank_is_named_as_such(tmp_path: Path) -> None:
    plan = submitted(tmp_path, trouble="stop", guilty=1, attempts=9)
    folder = plan.jobs["job"].folder
    stall = stall_of(plan)
    cancel_run(plan.run, [])
    assert stall["state"] == "stopped"
    words = (
        "rank 1 on node1 is stopped by a signal: step 3, in data; the other 3 wait in all_reduce"
    )
    assert stall["line"].endswith(words)
    wait_for(lambda: nothing_left(folder), "an empty node", seconds=60, every=0.2)


def test_a_node_with_another_host_name_is_told_of_by_slurms(tmp_path: Path) -> None:
    plan = submitted(tmp_path, trouble="sleep", attempts=9, sbatch={"exclude": "node[1-4]"})
    folder = plan.jobs["job"].folder
    stall = stall_of(plan)
    cancel_run(plan.run, [])
    assert nodes_of(folder)[1] == stall["node"] == "node6"
    assert (folder.watch / "000" / "node6.json").exists()
    answer = read_json(folder.preflight / "node6.json")
    assert (answer["node"], answer["facts"]["host"]) == ("node6", "node6.dev")
    wait_for(lambda: nothing_left(folder), "an empty node", seconds=60, every=0.2)


def test_a_slow_rank_shows_its_node(tmp_path: Path) -> None:
    """The job has GPUs: ranks get them all, though the watch is a step beside theirs."""
    hold = tmp_path / "hold"
    hold.touch()
    slow_job = {"trouble": "slow", "seconds": 0.2, "guilty": 2, "hold": str(hold)}
    plan = submitted(tmp_path, gpus=2, stall_seconds=60, **slow_job)
    folder = plan.jobs["job"].folder
    wait_for(
        lambda: sum(len(row["ranks"]) for row in read_stragglers(folder)) == 4,
        "a table of all ranks",
        seconds=240,
        every=0.2,
    )
    asked = rank_states(folder)
    assert [(rank.rank, rank.state) for rank in asked] == [(n, "") for n in range(4)]
    assert all(any(frame.file == str(HANG) for frame in rank.frames()) for rank in asked)
    hold.unlink()
    wait_for(lambda: state_of(plan) == "done", "the end", seconds=240, every=0.2)
    nodes = nodes_of(folder)
    slow, other = read_stragglers(folder)
    assert (slow["node"], slow["slowest"], slow["straggler"]) == (nodes[1], 2, True)
    assert slow["times"] == pytest.approx(3, rel=0.4)  # and 3 times the sleep by the stage's word
    assert (other["node"], other["straggler"]) == (nodes[0], False)
    assert not [event for event in read_events(folder) if event["event"] == "stall"]
    assert nothing_left(folder)
