"""The verdict on a stall, stacks for people, the table of stragglers: cases with known answers."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.config.site import Watch
from megatron_jobs.errors import UserError
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.inquiry import gather, rank_states
from megatron_jobs.jobs.stacks import (
    Frame,
    RankState,
    answer,
    answers,
    ask,
    in_group,
    main_stack,
    merged,
    put,
    request,
    request_file,
    shortened,
)
from megatron_jobs.jobs.stall import judge_stall
from megatron_jobs.jobs.stragglers import read_stragglers, straggler_table, write_stragglers
from megatron_jobs.jobs.watch import NodeWatch, kill
from megatron_jobs.runtime.files import wait_for
from megatron_jobs.runtime.heartbeat import Beat, beat, birth_of, open_heartbeat
from megatron_jobs.runtime.rank import Rank

TORCH = "/env/lib/python3.11/site-packages/torch/distributed"
COLLECTIVE = [
    (f"{TORCH}/distributed_c10d.py", 3000, "all_reduce"),
    (f"{TORCH}/c10d_logger.py", 80, "wrapper"),
    ("/code/megatron_jobs/train/step.py", 190, "add_up"),
]
BATCH = [
    ("/env/lib/python3.11/pathlib.py", 1000, "read_bytes"),
    ("/code/megatron_jobs/data/token_file.py", 88, "read"),
    ("/code/megatron_jobs/train/step.py", 150, "run_micro_batches"),
]


def dump(*threads: list[tuple[str, int, str]]) -> str:
    """What faulthandler writes for threads, the main one given first."""
    texts = []
    for frames in reversed(threads):
        lines = [f'  File "{file}", line {line} in {name}' for file, line, name in frames]
        texts.append("\n".join(["Thread 0x00007f00 (most recent call first):", *lines]))
    return "\n\n".join(texts) + "\n"


def waiting(rank: int, step: int = 12, **changes: Any) -> RankState:
    facts: dict[str, Any] = {"what": "forward and backward", "stacks": dump(COLLECTIVE)}
    return RankState(rank=rank, node=f"node{rank // 2}", step=step, **facts | changes)


def reading(rank: int, step: int = 12, **changes: Any) -> RankState:
    return waiting(rank, step, **{"what": "data", "stacks": dump(BATCH)} | changes)


EIGHT = [waiting(rank) for rank in range(8)]
WHERE = "megatron_jobs/data/token_file.py:88 read"


def with_rank(state: RankState) -> list[RankState]:
    return [state if rank.rank == state.rank else rank for rank in EIGHT]


@pytest.mark.parametrize(
    ("ranks", "guilty", "words"),
    [
        (
            with_rank(reading(5)),
            (5, "node2", 12, WHERE),
            f"rank 5 on node2 is behind: step 12, in data, {WHERE}; the other 7 wait in all_reduce",
        ),
        (  # a smaller step, though it waits as well: for somebody that has gone on
            with_rank(waiting(3, 11)),
            (3, "node1", 11, "megatron_jobs/train/step.py:190 add_up"),
            "rank 3 on node1 is behind: step 11, in forward and backward, "
            "megatron_jobs/train/step.py:190 add_up; the other 7 wait in all_reduce",
        ),
        (
            with_rank(waiting(6, state="stopped", stacks="")),
            (6, "node3", 12, ""),
            "rank 6 on node3 is stopped by a signal: step 12, in forward and backward; "
            "the other 7 wait in all_reduce",
        ),
        (  # a dead process counts more than one that is merely late
            [*with_rank(reading(2, 3))[:-1], waiting(7, state="gone", stacks="")],
            (7, "node3", 12, ""),
            "rank 7 on node3 is gone: step 12, in forward and backward; "
            "6 of the other 7 wait in all_reduce",
        ),
        (
            with_rank(reading(1, state="disk", wchan="nfs_wait_bit_killable")),
            (1, "node0", 12, WHERE),
            "rank 1 on node0 is behind, waiting for a disk (nfs_wait_bit_killable): step 12, in "
            f"data, {WHERE}; the other 7 wait in all_reduce",
        ),
        (
            [*EIGHT[:6], *(waiting(rank, state="silent", stacks="") for rank in (6, 7))],
            (6, "node3", 12, ""),
            "rank 6 on node3 (and 1 more like it) does not answer, nor does its node: step 12, in "
            "forward and backward; the other 6 wait in all_reduce",
        ),
        (
            [reading(0, -1, what=""), waiting(1)],
            (0, "node0", -1, WHERE),
            f"rank 0 on node0 is behind: before its first step, {WHERE}; "
            "the other waits in all_reduce",
        ),
        (
            EIGHT,
            (-1, "", -1, ""),
            "no rank is behind: all 8 are in all_reduce at step 12",
        ),
    ],
)  # fmt: skip
def test_the_rank_that_the_others_wait_for_is_named(
    ranks: list[RankState], guilty: tuple[int, str, int, str], words: str
) -> None:
    stall = judge_stall(ranks, 900.4)
    assert stall.line == f"stalled 900 s: {words}"
    assert (stall.rank, stall.node, stall.step, stall.where) == guilty


def test_one_that_ran_ahead_is_the_odd_one() -> None:
    """Most are at step 12 in one collective, one is at step 13 in another: they do not fit."""
    assert judge_stall(with_rank(waiting(4, 13)), 1).rank == 4


RECEIVE = [("/env/megatron/core/pipeline_parallel/p2p_communication.py", 160, "_communicate")]


@pytest.mark.parametrize(
    "ranks",
    [
        [waiting(0), reading(1)],
        [waiting(0, 11), reading(1, 11), *EIGHT[2:]],
        [reading(1), *(waiting(rank) for rank in (0, 2, 3)), *EIGHT[5:]],
        [reading(1), *EIGHT[2:5], *(waiting(rank, stacks=dump(RECEIVE)) for rank in (5, 6, 7))],
        [reading(1), reading(2, stacks=dump(BATCH[1:])), waiting(3)],
    ],
)
def test_who_works_keeps_those_that_wait_in_whatever_way(ranks: list[RankState]) -> None:
    assert judge_stall(ranks, 1).rank == 1


def test_waiting_for_the_gpu_is_waiting() -> None:
    frames = [("/code/megatron_jobs/train/step.py", 200, "all_agree")]
    assert waiting(0, stacks=dump(frames)).waits() == "all_agree"
    assert reading(0).waits() == ""
    assert waiting(0, stacks="").waits() == ""


THREADS = """
import faulthandler, threading, time
def work(): time.sleep(9)
def outer(): inner()
def inner(): faulthandler.dump_traceback(all_threads=True)
for _ in range(3): threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
outer()
"""


def test_the_main_thread_is_found_in_what_faulthandler_writes() -> None:
    command = [sys.executable, "-c", THREADS]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert written.count("most recent call first") == 4
    assert [frame.name for frame in main_stack(written)] == ["inner", "outer", "<module>"]
    assert main_stack("") == []
    assert main_stack(dump(BATCH, COLLECTIVE))[0] == Frame(BATCH[0][0], "1000", "read_bytes")


@pytest.mark.parametrize(
    ("file", "short"),
    [
        ("/runs/a/.code/abc/megatron_jobs/data/token_file.py", "megatron_jobs/data/token_file.py"),
        ("/home/me/project/tests/stages/hang.py", "tests/stages/hang.py"),
        ("hang.py", "hang.py"),
    ],
)
def test_paths_are_shortened(file: str, short: str) -> None:
    assert shortened(file) == short


def test_equal_stacks_are_shown_once() -> None:
    text = merged(with_rank(reading(5)))
    assert text.splitlines() == [
        "1 rank: 5 on node2; step 12, in data",
        *(f'  File "{file}", line {line} in {name}' for file, line, name in BATCH),
        "",
        "7 ranks: 0-4,6-7 on 4 nodes, the first is node0; step 12, in forward and backward",
        *(f'  File "{file}", line {line} in {name}' for file, line, name in COLLECTIVE),
    ]


def test_answers_of_nodes_that_answer_and_one_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron_jobs.jobs.inquiry.ANSWER_SECONDS", -4)
    folder = JobFolder(tmp_path)
    for node, start in ((0, "7.1"), (1, "7.1"), (150, "7.1"), (2, "7.0")):
        beat = {"rank": node, "step": 4, "what": "data", "time": 5.0, "watched": True}
        summary = {"start": start, "name": f"n{node}", "node": node, "time": 1.0, "ranks": [beat]}
        put(in_group(folder.watch, node, f"n{node}"), summary)
    place = ask(folder, "7.1")
    for node in (0, 150):
        answer(in_group(place, node, f"n{node}"), [waiting(node)])
    assert {path.parent.name for path in place.glob("*/*.json")} == {"000", "001"}
    assert answers(place, {"n0": 0, "n1": 1, "n150": 150}) == {
        "n0": [waiting(0)],
        "n150": [waiting(150)],
    }
    silent = RankState(rank=1, node="n1", step=4, what="data", time=5.0, state="silent")
    assert gather(folder, "7.1", place) == [waiting(0), silent, waiting(150)]


def test_a_job_that_does_not_run_has_no_stacks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="job: no rank gives signs of life; does it run"):
        rank_states(JobFolder(tmp_path / "job"))


def summary(host: str, *own_seconds: float) -> dict[str, Any]:
    ranks = [
        {"rank": rank, "step": 9, "own_seconds": seconds}
        for rank, seconds in enumerate(own_seconds, start=int(host[1:]) * 2)
    ]
    return {"name": host, "ranks": ranks}


def test_a_node_is_as_slow_as_its_slowest_rank(tmp_path: Path) -> None:
    told = [summary("n0", 1.0, 1.1), summary("n1", 1.0, 2.5), summary("n2", 0.9, 1.0)]
    rows = straggler_table([*told, summary("n3", 0.0, 0.0)], factor=1.2)
    assert [(row["node"], row["slowest"], row["straggler"]) for row in rows] == [
        ("n1", 3, True),
        ("n0", 1, False),
        ("n2", 5, False),
    ]
    assert [row["times"] for row in rows] == [2.5, 1.1, 1.0]
    folder = JobFolder(tmp_path)
    assert read_stragglers(folder) == []
    write_stragglers(folder, rows)
    assert read_stragglers(folder) == rows
    assert straggler_table([summary("n3", 0.0)], factor=1.2) == []


def test_a_node_at_the_factor_is_a_straggler() -> None:
    rows = straggler_table([summary("n0", 1.0, 1.0), summary("n1", 1.0, 1.25)], factor=1.25)
    assert [row["straggler"] for row in rows] == [True, False]


def test_silence_is_a_stall_only_of_watched_ranks_and_in_time_that_we_saw(tmp_path: Path) -> None:
    now = time.time()

    def node(**settings: Any) -> NodeWatch:
        watch = NodeWatch(JobFolder(tmp_path), Rank(), tmp_path, Watch(**settings))
        watch.awake = now - 1000
        return watch

    silent = Beat(0, 1, 1, time=now - 60, watched=True)
    alive = Beat(1, 1, 1, time=now - 5, watched=True)
    resting = Beat(1, 1, 1, time=now - 5, watched=False)
    assert node(stall_seconds=30).silent([silent], now)
    assert node(stall_seconds=30).silent([silent, resting], now)
    assert not node(stall_seconds=30).silent([silent, alive], now)
    assert not node(stall_seconds=90).silent([silent], now)
    assert not node(stall_seconds=0).silent([silent], now)
    assert not node(stall_seconds=30).silent([], now)
    assert not node(stall_seconds=30).silent([resting], now)
    suspended = node(stall_seconds=30)
    suspended.awake = now - 10
    assert not suspended.silent([silent], now)
    suspended.looked = now - 100
    suspended.look()
    assert suspended.awake >= now


def test_a_rank_that_ends_as_it_is_killed_saves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def end(pid: int, _: int) -> None:
        asked.append(pid)
        raise ProcessLookupError

    monkeypatch.setattr("megatron_jobs.jobs.watch.os.kill", end)
    ours = Beat(0, os.getpid(), birth_of(os.getpid()))
    kill([ours, ours])
    assert asked == [os.getpid()] * 2


def test_a_watch_that_missed_the_question_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron_jobs.jobs.inquiry.ANSWER_SECONDS", -4.5)
    folder = JobFolder(tmp_path)
    tell = {"rank": 0, "step": 4, "what": "data", "time": 5.0, "watched": True}
    told = {"start": "7.1", "name": "n0", "node": 0, "time": 1.0, "ranks": [tell]}
    put(in_group(folder.watch, 0, "n0"), told)
    place = ask(folder, "7.1")
    first = request_file(folder).stat().st_ino

    def answer_second() -> None:
        wait_for(lambda: request_file(folder).stat().st_ino != first, "it", seconds=5)
        assert request(folder)["id"] == place.name
        answer(in_group(place, 0, "n0"), [waiting(0)])

    watch = threading.Thread(target=answer_second)
    watch.start()
    assert gather(folder, "7.1", place) == [waiting(0)]
    watch.join()


def test_a_watch_looks_at_a_file_that_is_there_before_anything_is_asked(tmp_path: Path) -> None:
    """A client of NFS remembers for a minute that there was none."""
    rank = Rank(host="n1.site", slurm_node="n1", node=1)
    node = NodeWatch(JobFolder(tmp_path), rank, tmp_path / "beats", Watch())
    node.look()
    assert request_file(node.folder).read_text() == ""
    assert [path.name for path in node.folder.watch.glob("000/*")] == ["n1.json"]


def test_many_silent_nodes_are_not_blamed() -> None:
    states = [waiting(rank, stacks="", state="silent") for rank in range(2, 8)]
    stall = judge_stall([waiting(0), reading(1), *states], 9)
    assert (stall.rank, stall.node) == (1, "node0")
    assert stall.line.endswith("; the other waits in all_reduce; the watch reached 1 of 4 nodes")
    few = judge_stall([*(waiting(rank) for rank in range(6)), *states[-2:]], 9)
    assert (few.rank, few.state) == (6, "silent")
    assert judge_stall(states, 9).line == "stalled 9 s: the watch reached 0 of 3 nodes"
    assert judge_stall([waiting(0), *states], 9).node == ""


def test_a_save_may_be_silent_for_four_times_as_long(tmp_path: Path) -> None:
    now = time.time()
    node = NodeWatch(JobFolder(tmp_path), Rank(), tmp_path, Watch(stall_seconds=30))
    node.awake = now - 1000
    for seconds, stalled in ((100, False), (130, True)):
        saving = Beat(0, 1, 1, time=now - seconds, watched=True, what="save")
        waits = replace(saving, rank=1, what="log")
        assert node.silent([saving, waits], now) == stalled
        assert node.silent([waits], now)


def test_a_watch_that_ends_leaves_nothing_even_while_a_rank_lives(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with open_heartbeat(Rank(), tmp_path / "beats") as place:
        beat(1, "data")
        NodeWatch(JobFolder(tmp_path), Rank(), place, Watch()).leave()
        assert not place.exists()
        beat(2, "data")
    signal.signal(signal.SIGUSR1, before)
    assert not place.exists()
