"""Headway, the guard against restarts in vain, and what is decided after a start."""

import itertools
import time
from pathlib import Path

import pytest

from megatron_jobs.enter import main
from megatron_jobs.errors import EXIT_BUG, EXIT_NOTHING_TO_DO, EXIT_STOPPED, EXIT_UNFIT
from megatron_jobs.jobs.after import OVER_TIME, REASONS, WARNED_EARLY, settle, settle_before
from megatron_jobs.jobs.again import (
    excluded,
    headway,
    moved_on,
    restarts_in_vain,
    superseded,
    why_not,
)
from megatron_jobs.jobs.cluster import Cluster, write_cluster
from megatron_jobs.jobs.events import note, read_events
from megatron_jobs.jobs.folder import JobFolder, write_job
from megatron_jobs.jobs.plan import Job, load_job, load_plan
from megatron_jobs.jobs.strikes import DAY, forget, strike
from megatron_jobs.runtime.files import write_json
from megatron_jobs.runtime.progress import Progress

CLUSTER = Cluster(name="here", max_restarts=9, stuck_restarts=3)


def make_job(tmp_path: Path, text: str = "{job: {stage: tests.stages.echo}}") -> Job:
    path = tmp_path / "plan.yaml"
    path.write_text(f"jobs: {text}\n")
    plan = load_plan(str(path), [], tmp_path / "run")
    for job in plan.jobs.values():
        job.folder.logs.mkdir(parents=True)
        write_job(job.folder, job.description())
        write_cluster(job.folder, CLUSTER)
        write_json(job.folder.slurm, {"cluster": "here", "ids": ["7"]})
        note(job.folder, "submit")
    return list(plan.jobs.values())[-1]


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return make_job(tmp_path).folder


def start(folder: JobFolder, reached: int) -> None:
    note(folder, "start", reached=reached, restart=0, nodes=["n1"])


@pytest.mark.parametrize(
    ("reached", "count"),
    [
        ([0], 0),  # nothing has run
        ([0, 0], 0),  # one start, no restart, in vain
        ([0, 5], 0),
        ([0, 0, 0], 1),
        ([0, 5, 5], 1),
        ([0, 5, 6], 0),
        ([0, 0, 0, 0, 0], 3),
        ([0, 9, 9, 9, 9], 3),
        ([0, 9, 9, 9, 10], 0),
        ([0, 9, 9, 10, 10, 10], 2),
        ([5, 5, 5, 6, 6], 1),
    ],
)
def test_restarts_in_vain(reached: list[int], count: int) -> None:
    slow = 0
    for before, after in itertools.pairwise(reached[1:]):  # the first start is no restart
        slow = 0 if after > before else slow + 1
    assert slow == count
    assert restarts_in_vain(reached) == count


def test_headway_is_the_most_ever_seen(folder: JobFolder) -> None:
    assert headway(folder) == 0
    start(folder, 0)
    start(folder, 40)
    assert headway(folder) == 40
    progress = Progress(folder.path, total=100, unit="steps", every=0)
    progress.update(31)
    assert headway(folder) == 40  # it went back to a checkpoint
    progress.update(55)
    assert headway(folder) == 55


def test_the_guard_counts_since_the_last_submit(folder: JobFolder) -> None:
    for _ in range(3):
        start(folder, 12)
        assert why_not(folder, CLUSTER) == ""
    start(folder, 12)
    assert why_not(folder, CLUSTER) == (
        "restarts in a row without headway: 3, it is still at 12; "
        "not put back in the queue: find the cause, then submit it again"
    )
    Progress(folder.path, total=100, unit="steps", every=0).update(13)
    assert why_not(folder, CLUSTER) == ""
    start(folder, 13)
    assert why_not(folder, CLUSTER) == ""
    note(folder, "submit")
    start(folder, 13)
    start(folder, 13)
    assert why_not(folder, CLUSTER) == ""


def test_no_job_is_restarted_for_ever(folder: JobFolder) -> None:
    for step in range(10):
        assert why_not(folder, CLUSTER) == ""
        start(folder, step)
    Progress(folder.path, total=100, unit="steps", every=0).update(10)
    words = "after 9 restarts not put back in the queue (max_restarts): submit it again to go on"
    assert why_not(folder, CLUSTER) == words


def test_a_start_that_left_no_word_is_noted_once(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert settle_before(job) == ""
    start(job.folder, 0)
    note(job.folder, "stall", rank=1, node="n1", step=3, where="")
    assert settle_before(job) == ""
    assert settle_before(job) == ""
    start(job.folder, 0)
    note(job.folder, "stopped", reason="")
    assert settle_before(job) == ""
    names = [event["event"] for event in read_events(job.folder)]
    assert names == ["submit", "start", "stall", "lost", "start", "stopped"]


SLURM_SAYS = "slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-21T09:05:00 DUE TO "


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "nobody left a word"),
        (SLURM_SAYS + "JOB REQUEUE ***", "it was put back in the queue"),
        (SLURM_SAYS + "PREEMPTION ***", "another job came first"),
        (SLURM_SAYS + "TIME LIMIT ***", REASONS[OVER_TIME]),
        (f"{SLURM_SAYS}NODE FAILURE\nsrun: error: Node failure on n2", "n2: Node failure on n2"),
    ],
)
def test_slurm_says_why_a_start_ended_without_a_word(tmp_path: Path, said: str, why: str) -> None:
    folder = make_job(tmp_path).folder
    header = "2026-11-21T09:0{0}:00+00:00 Slurm job 7, restart {0}, on n[1-2]"
    lines = [header.format(0), said, header.format(1)]  # the start that looks back has begun
    folder.logs.joinpath("batch.log").write_text("\n".join(lines) + "\n")
    facts = {"slurm_job_id": "7", "slurm_restart": 0, "nodes": ["n1", "n2"]}
    note(folder, "start", restart=0, reached=0, **facts)
    assert settle_before(load_job(folder)) == ""
    last = read_events(folder)[-1]
    assert (last["event"], last["why"]) == ("lost", why)
    assert folder.postmortem.exists() == ("Node failure" in said)


def decide(folder: JobFolder, status: int, reached: int = 0) -> tuple[str, list[str]]:
    """The decision after a start that ended with `status`, and the events it left."""
    start(folder, reached)
    seen = len(read_events(folder))
    line = settle(folder, status)
    assert folder.next.read_text() == line + "\n"
    return line, [event["event"] for event in read_events(folder)[seen:]]


def test_what_follows_from_an_end(folder: JobFolder) -> None:
    assert decide(folder, 0) == ("end 0", ["end"])
    assert decide(folder, EXIT_STOPPED) == ("again ", ["stopped", "again"])
    assert decide(folder, OVER_TIME, reached=1) == ("again ", ["stopped", "again"])
    assert decide(folder, WARNED_EARLY, reached=2) == ("again ", ["stopped", "again"])
    assert decide(folder, EXIT_UNFIT, reached=2) == ("again ", ["again"])
    folder.error(0).write_text("ZeroDivisionError: division by zero\n")
    assert decide(folder, EXIT_BUG, reached=3) == ("stop 1", ["failed", "stop"])


def test_the_kill_switch_is_stronger(folder: JobFolder) -> None:
    folder.kill_switch.touch()
    assert decide(folder, EXIT_STOPPED) == ("stop 75", ["stopped", "stop"])
    assert decide(folder, EXIT_UNFIT) == ("stop 5", ["stop"])
    assert decide(folder, 0) == ("end 0", ["end"])


def test_the_guard_is_heard_after_each_start_and_before_it(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    for _ in range(3):
        assert decide(job.folder, EXIT_STOPPED)[0] == "again "
    assert decide(job.folder, EXIT_STOPPED)[0] == "stop 75"
    note(job.folder, "submit")
    for _ in range(4):
        assert settle_before(job) == ""
        start(job.folder, 0)  # and no word after it
    assert settle_before(job) == "stop 75"
    names = [event["event"] for event in read_events(job.folder)]
    assert names[-9:] == ["start", "lost"] * 4 + ["stop"]


def test_nodes_that_are_left_out_stay_so(folder: JobFolder, tmp_path: Path) -> None:
    strikes = str(tmp_path / "strikes")
    cluster = CLUSTER.model_copy(update={"strikes": strikes})
    assert excluded(folder, cluster, ["n3"]) == ["n3"]
    note(folder, "again", how="requeue", exclude=["n3"], own=["n3"])
    strike(cluster, "n7", "a GPU has fallen off the bus", folder)
    assert excluded(folder, cluster, []) == ["n3", "n7"]
    assert excluded(folder, cluster, ["n5", "n3"]) == ["n7", "n3", "n5"]  # the oldest first
    note(folder, "submit")
    assert excluded(folder, CLUSTER, []) == []


def test_nodes_come_back_when_their_time_is_over_or_the_list_forgets_them(
    folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = CLUSTER.model_copy(update={"strikes": str(tmp_path / "strikes")})
    write_cluster(folder, cluster)
    folder.preflight.mkdir()
    strike(cluster, "n7", "a GPU has fallen off the bus", folder)
    monkeypatch.setattr("megatron_jobs.jobs.after.unfit_nodes", lambda folder: ["n3", "n7"])
    assert decide(folder, EXIT_UNFIT)[0] == "again n7,n3"
    monkeypatch.undo()
    assert decide(folder, EXIT_STOPPED, reached=1)[0] == "again n7,n3"
    forget(cluster, "n7")
    assert decide(folder, EXIT_STOPPED, reached=2)[0] == "again n3"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + cluster.strike_days * DAY + 60)
    assert decide(folder, EXIT_STOPPED, reached=3)[0] == "again "
    assert "own" not in read_events(folder)[0]


@pytest.mark.parametrize("how", ["JOB REQUEUE", "PREEMPTION", "NODE FAILURE", "TIME LIMIT"])
def test_what_slurm_does_to_a_job_is_not_the_jobs_fault(tmp_path: Path, how: str) -> None:
    job = make_job(tmp_path)
    log = job.folder.logs / "batch.log"
    for number in range(6):
        if settle_before(job):
            break
        words = f"2026-11-21T09:0{number}:00+00:00 Slurm job 7, restart {number}, on n1\n"
        with log.open("a") as lines:
            lines.write(f"{words}{SLURM_SAYS}{how} ***\n")
        facts = {"slurm_job_id": "7", "slurm_restart": number, "nodes": ["n1"]}
        note(job.folder, "start", restart=number, reached=0, **facts)
    stopped = "stop" in [event["event"] for event in read_events(job.folder)]
    assert stopped == (how == "TIME LIMIT")


def test_a_start_that_was_lost_and_lives_does_not_act(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert not superseded(folder)
    note(folder, "start", reached=0, slurm_restart=0)
    assert not superseded(folder)
    note(folder, "start", reached=0, slurm_restart=1, slurm_job_id="7")
    before = read_events(folder)
    assert settle(folder, EXIT_BUG) == ""
    assert main(["--finish", str(folder.path)]) == EXIT_STOPPED
    assert main(["--after=1", str(folder.path)]) == EXIT_NOTHING_TO_DO
    assert "the job was started anew since" in capsys.readouterr().out
    assert not folder.next.exists()
    assert not folder.receipt.exists()
    assert read_events(folder) == before
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert not superseded(folder)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")  # it ended before it had noted its start
    assert settle(folder, EXIT_STOPPED) == "again "


@pytest.mark.parametrize(("killed", "news"), [(False, "requeue"), (True, "end")])
def test_people_are_told_after_the_script_is(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, *, killed: bool, news: str
) -> None:
    told: list[tuple[str, str]] = []
    note_it = lambda folder, event, *_, **__: told.append((event, folder.next.read_text()))  # noqa: E731
    monkeypatch.setattr("megatron_jobs.jobs.after.tell", note_it)
    if killed:
        folder.kill_switch.touch()
    line, _ = decide(folder, EXIT_STOPPED)
    assert told == [(news, line + "\n")]


CHAIN = "{first: {stage: tests.stages.echo}, second: {stage: tests.stages.echo, after: [first]}}"


def test_a_job_waits_once_for_one_that_goes_on_under_a_new_id(tmp_path: Path) -> None:
    second = make_job(tmp_path, CHAIN)
    first = JobFolder(second.run / "first")
    assert moved_on(second) == []
    note(first, "again", how="submit", exclude=[])
    note(first, "again", how="submit", successor="8")
    assert settle_before(second) == "behind 8"
    assert settle_before(second) == ""  # it has waited for that one
    note(first, "again", how="submit", successor="9")
    assert settle_before(second) == "behind 9"
    note(first, "again", how="submit", successor="10")
    first.receipt.touch()
    assert settle_before(second) == ""


def test_a_chain_ends_with_its_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path)
    ahead = CLUSTER.model_copy(update={"again": "ahead", "successors": 2})
    write_cluster(job.folder, ahead)
    write_json(job.folder.slurm, {"cluster": "here", "ids": ["7", "8", "9"]})
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert decide(job.folder, EXIT_STOPPED) == ("again ", ["stopped", "again"])
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert settle_before(job) == ""
    assert decide(job.folder, EXIT_BUG, reached=1) == ("stop 1", ["failed", "stop"])
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    assert settle_before(job) == "stop 1"
    monkeypatch.setenv("SLURM_JOB_ID", "8")  # the same one, put back by hand
    assert settle_before(job) == ""


def test_the_last_of_a_chain_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path)
    write_cluster(job.folder, CLUSTER.model_copy(update={"again": "ahead", "successors": 2}))
    write_json(job.folder.slurm, {"cluster": "here", "ids": ["7", "8", "9"]})
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    assert decide(job.folder, EXIT_STOPPED) == ("stop 75", ["stopped", "stop"])
    assert read_events(job.folder)[-1]["why"] == (
        "the last of 2 successors has come to its end: submit the job again to go on"
    )
