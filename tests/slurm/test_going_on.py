"""Jobs are stopped, put back, moved and given up on a real Slurm (stage: tests.stages.echo)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.events import read_events
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import wait_for

SLURM_COMMANDS = {"sbatch", "scancel", "scontrol", "sinfo", "squeue", "sacct"}
NODE = str(Path(__file__).parents[2] / "slurm" / "devcluster" / "node")
NO_PREFLIGHT = {"preflight": {"nodes": False, "links": False}}


SLOW_ONCE = {"seconds": 600, "slow_once": True}
"""A job that goes on until something happens to it; its next start ends at once."""


def plan_of(tmp_path: Path, **jobs: dict[str, Any]) -> Plan:
    """A plan of echo jobs on two nodes with one rank each."""
    two = {"nodes": 2, "hours": 0.2}
    entries = {
        name: {"stage": "tests.stages.echo", "resources": two} | job for name, job in jobs.items()
    }
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": entries}))
    return load_plan(str(path), [], tmp_path / "run")


def submit(plan: Plan, **changes: Any) -> dict[str, str]:
    known = load_cluster("devcluster")
    cluster = type(known).model_validate(known.model_dump() | NO_PREFLIGHT | changes)
    return dict(submit_plan(plan, cluster, dry_run=False))


def status(plan: Plan, job: str = "job") -> dict[str, Any]:
    return next(record for record in plan_status(plan.run) if record["job"] == job)


def wait_for_state(plan: Plan, state: str, job: str = "job", seconds: float = 240) -> None:
    try:
        wait_for(lambda: status(plan, job)["state"] == state, state, seconds=seconds, every=0.3)
    except Exception as error:
        raise AssertionError(f"{error}: {plan_status(plan.run)}") from error


def wait_for_ranks(plan: Plan, starts: int = 1, seconds: float = 180) -> None:
    """Until both ranks of `job` have begun so many times."""
    folder = plan.jobs["job"].folder
    lines = lambda rank: folder.log(rank).read_text().count("rank ")  # noqa: E731
    begun = lambda: all(folder.log(r).exists() and lines(r) >= starts for r in (0, 1))  # noqa: E731
    wait_for(begun, f"start {starts} of the ranks", seconds=seconds, every=0.1)


def call(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def accounted(slurm_id: str) -> list[str]:
    """The state of each start, as sacct has it."""
    return call("sacct", "-DXnP", "-o", "State", "-j", slurm_id).splitlines()


def wait_until_accounted(slurm_id: str, *wanted: str) -> None:
    wait_for(
        lambda: accounted(slurm_id) == list(wanted), f"{wanted} in sacct", seconds=60, every=0.3
    )


def happened(plan: Plan, job: str = "job") -> list[str]:
    return [event["event"] for event in read_events(plan.jobs[job].folder)]


@pytest.fixture(scope="module")
def bereft(module_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """A job that has just lost the node of its script: Slurm takes its time to miss it."""
    plan = plan_of(tmp_path_factory.mktemp("bereft"), job=SLOW_ONCE)
    submit(plan, sbatch={"exclude": "node1,node2,node3"})
    wait_for_ranks(plan)
    try:
        call(NODE, "kill", "node4")
        yield plan
    finally:
        call(NODE, "start", "node4")


@pytest.fixture(scope="module")
def overdue(module_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A job whose ranks do not listen, with a time limit of a minute; its next start is quick."""
    one_minute = {"nodes": 2, "hours": 1 / 60}
    job = {**SLOW_ONCE, "stubborn": True, "resources": one_minute}
    plan = plan_of(tmp_path_factory.mktemp("overdue"), job=job)
    submit(plan, sbatch={"exclude": "node4"})
    return plan


@pytest.mark.slow
@pytest.mark.usefixtures("bereft", "overdue")
def test_a_job_that_makes_no_headway_is_stopped(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, job={"trouble": "kill", "guilty": 1}, later={"after": ["job"]})
    ids = submit(plan, stuck_restarts=1)
    wait_for_state(plan, "failed")
    wait_for_state(plan, "cancelled", "later")
    wait_until_accounted(ids["job"], "REQUEUED", "FAILED")
    events = read_events(plan.jobs["job"].folder)
    assert [event["event"] for event in events if event["event"] != "preflight"] == [
        *("submit", "start", "failed", "again"),
        *("start", "failed", "stop"),
    ]
    assert "restarts in a row without headway: 1, it is still at 0" in events[-1]["why"]


@pytest.mark.slow
def test_a_job_put_back_by_hand_goes_on(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, job=SLOW_ONCE)
    ids = submit(plan)
    wait_for_ranks(plan)
    call("scontrol", "requeue", ids["job"])
    wait_for_state(plan, "done")
    wait_until_accounted(ids["job"], "REQUEUED", "COMPLETED")
    assert happened(plan) == ["submit", "start", "lost", "start", "end"]


@pytest.mark.slow
def test_a_warning_that_comes_while_ranks_start_is_heard(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, job=SLOW_ONCE)
    ids = submit(plan)

    def ended() -> bool:
        subprocess.run(["scancel", "--signal=USR2", ids["job"]], check=False, capture_output=True)
        return bool({"stopped", "failed", "lost"} & set(happened(plan)))

    # one every few hundredths of a second, from before the ranks start
    wait_for(ended, "the end of the first start", seconds=180, every=0.01)
    wait_for_state(plan, "done")
    assert happened(plan) == ["submit", "start", "stopped", "again", "start", "end"]


@pytest.mark.slow
def test_the_kill_switch_keeps_a_stopped_job_from_going_on(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, job={"seconds": 600})
    ids = submit(plan)
    wait_for_ranks(plan)
    plan.jobs["job"].folder.kill_switch.touch()
    call("scancel", "--signal=TERM", ids["job"])
    wait_for_state(plan, "stopped")
    wait_until_accounted(ids["job"], "FAILED")
    assert happened(plan) == ["submit", "start", "stopped", "stop"]
    assert "KILL is there" in read_events(plan.jobs["job"].folder)[-1]["why"]


@pytest.mark.slow
def test_where_nothing_can_be_put_back_a_successor_goes_on(tmp_path: Path) -> None:
    """Those that waited for the old id put themselves behind the new one."""
    hold = tmp_path / "hold"  # on the successor, until the other has put itself behind it
    hold.touch()
    slow = SLOW_ONCE | {"hold": str(hold)}
    plan = plan_of(tmp_path, job=slow, later={"reads": "@job/words"})
    ids = submit(plan, again="submit")
    wait_for_ranks(plan)
    call("scancel", "--signal=USR2", ids["job"])
    wait_for(lambda: "again" in happened(plan, "later"), "its wait", seconds=180, every=0.2)
    hold.unlink()
    wait_for_state(plan, "done", "later")
    first, second = (plan.jobs[name].folder.slurm_ids() for name in ("job", "later"))
    assert len(first) == 2
    assert len(second) == 2
    for slurm_id in first + second:
        wait_until_accounted(slurm_id, "COMPLETED")
    assert happened(plan) == ["submit", "start", "stopped", "again", "again", "start", "end"]
    assert happened(plan, "later") == ["submit", "behind", "again", "start", "end"]
    receipt = read_receipt(plan.jobs["job"].folder)
    assert receipt is not None
    assert receipt["slurm_job_ids"] == first


@pytest.mark.slow
def test_jobs_submitted_ahead_take_up_where_the_one_before_stopped(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, job=SLOW_ONCE, later={"reads": "@job/words"})
    submit(plan, again="ahead", successors=2, environment=no_slurm_commands(tmp_path / "bin"))
    chain = plan.jobs["job"].folder.slurm_ids()
    assert len(chain) == 3
    wait_for_ranks(plan)
    call("scancel", "--signal=USR2", chain[0])
    wait_for_state(plan, "done")
    wait_for_state(plan, "done", "later")
    for slurm_id in (*chain, *plan.jobs["later"].folder.slurm_ids()):
        wait_until_accounted(slurm_id, "COMPLETED")
    assert happened(plan) == ["submit", "start", "stopped", "again", "start", "end"]
    assert happened(plan, "later") == ["submit", "start", "end"]


@pytest.mark.slow
def test_when_one_job_of_a_chain_gives_up_so_do_the_others(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, job={"trouble": "user"}, later={"after": ["job"]})
    submit(plan, again="ahead", successors=2, environment=no_slurm_commands(tmp_path / "bin"))
    wait_for_state(plan, "failed")
    wait_for_state(plan, "cancelled", "later")
    for slurm_id in plan.jobs["job"].folder.slurm_ids():
        wait_until_accounted(slurm_id, "FAILED")
    for slurm_id in plan.jobs["later"].folder.slurm_ids():
        wait_until_accounted(slurm_id, "CANCELLED")
    assert happened(plan).count("start") == 1
    assert happened(plan, "later") == ["submit"]


def no_slurm_commands(folder: Path) -> dict[str, str]:
    """PATH of a site whose nodes have srun alone."""
    folder.mkdir()
    for place in os.get_exec_path()[::-1]:
        for file in Path(place).iterdir() if Path(place).is_dir() else ():
            if file.name not in SLURM_COMMANDS:
                folder.joinpath(file.name).unlink(missing_ok=True)
                folder.joinpath(file.name).symlink_to(file)
    return {"GLOO_SOCKET_IFNAME": "lo", "PATH": str(folder)}


@pytest.mark.slow
def test_a_job_that_lost_the_node_of_its_script_goes_on(bereft: Plan) -> None:
    """Nobody was left to say a word: Slurm puts the job back."""
    wait_for_state(bereft, "done")
    wait_until_accounted(bereft.jobs["job"].folder.slurm_ids()[0], "NODE_FAIL", "COMPLETED")
    assert happened(bereft) == ["submit", "start", "lost", "start", "end"]


@pytest.mark.slow
def test_a_job_that_is_killed_at_its_time_limit_goes_on(overdue: Plan) -> None:
    wait_for_state(overdue, "done")
    events = read_events(overdue.jobs["job"].folder)
    assert [event["event"] for event in events] == ["submit", "start", "lost", "start", "end"]
    assert events[2]["why"].startswith("its time limit came before it had saved")
