"""Nodes tried in pairs, each node a process of this machine."""

import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_jobs.errors import MegatronJobsError
from megatron_jobs.parallel import pairs
from megatron_jobs.parallel.pairs import Seat, partners_of, reduce_at, try_pairs
from megatron_jobs.runtime.rank import Rank


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)


@pytest.mark.parametrize("nodes", [*range(1, 12), 100, 101])
def test_each_node_meets_two_others_and_one_at_a_time(nodes: int) -> None:
    rounds = list(zip(*(partners_of(node, nodes) for node in range(nodes)), strict=True))
    for partners in rounds:
        for node, partner in enumerate(partners):
            assert partner is None or (partner != node and partners[partner] == node)
    for node in range(nodes):
        met = [partners[node] for partners in rounds if partners[node] is not None]
        assert len(met) == len(set(met)) == min(2, nodes - 1)
    assert len(rounds) == {1: 0, 2: 1}.get(nodes, 2 + nodes % 2)


def meet(
    folder: Path, nodes: int, *, away: Collection[int] = (), seconds: float = 8
) -> tuple[dict[str, dict[str, Any]], float]:
    """What each node but those away leaves, and the seconds until all had."""

    def be(node: int) -> None:
        rank = Rank(index=node, world=nodes, node=node, nodes=nodes, host="localhost", attempt="1")
        try_pairs(rank, names, folder, seconds=seconds, gpus=0)

    names = [f"n{node}" for node in range(nodes)]
    before = time.monotonic()
    context = multiprocessing.get_context("fork")
    there = [context.Process(target=be, args=(n,)) for n in range(nodes) if n not in away]
    for process in there:
        process.start()
    for process in there:
        process.join(60)
        assert process.exitcode == 0
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return found, time.monotonic() - before


def test_good_nodes_reduce_with_both_partners(tmp_path: Path) -> None:
    found, _ = meet(tmp_path, 3, seconds=40)
    assert set(found) == {"n0", "n1", "n2"}
    for name, answer in found.items():
        assert answer["node"] == name
        assert (answer["attempt"], answer["over"]) == ("1", "gloo")
        assert {trial["partner"] for trial in answer["trials"]} == set(found) - {name}
        assert all(t["good"] and t["cause"] == "" and t["gbps"] > 0.01 for t in answer["trials"])
        assert "alone" not in answer


def test_a_node_that_is_away_costs_its_partners_a_round_and_no_more(tmp_path: Path) -> None:
    found, seconds = meet(tmp_path, 4, away=[2])
    assert seconds < 8 + 4  # processes end when the machine lets them
    good = {
        name: {trial["partner"]: trial["good"] for trial in answer["trials"]}
        for name, answer in found.items()
    }
    assert good == {
        "n0": {"n1": True, "n3": True},
        "n1": {"n0": True, "n2": False},
        "n3": {"n2": False, "n0": True},
    }
    causes = [t["cause"] for answer in found.values() for t in answer["trials"] if not t["good"]]
    assert len(causes) == 2
    for cause in causes:
        assert re.fullmatch(r"waited \d s for the other node, in vain|no answer within \d s", cause)


def test_a_node_reduces_with_itself(tmp_path: Path) -> None:
    rank = Rank(index=1, world=2, node=1, nodes=2, host="localhost", attempt="1")
    assert pairs._try_alone(rank, tmp_path, 1, 30) == ""


def test_who_fails_with_all_is_tried_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no_such_port")
    found, _ = meet(tmp_path, 2, away=[1], seconds=5)
    assert "no_such_port" in found["n0"]["alone"]


def test_wrong_sums_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reduce_badly(numbers: torch.Tensor) -> None:
        numbers[7] += 1

    monkeypatch.setattr(pairs.dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(pairs.dist, "all_reduce", reduce_badly)
    with pytest.raises(MegatronJobsError, match=r"^1 of 1048576 sums are wrong$"):
        reduce_at(Seat(0, 1, 0, tmp_path, "localhost", 5))


def test_who_has_no_time_left_says_so_and_tries_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 30 s rounds end at 12 and 24; after 7 s the first is more than half over."""
    tried: list[float] = []

    def answer(_: Any, seconds: float) -> dict[str, Any]:
        tried.append(seconds)
        return {"good": True, "gbps": 1.0, "cause": ""}

    monkeypatch.setattr(pairs, "_try", answer)
    rank = Rank(node=0, nodes=4, host="localhost", attempt="1")
    names = ["n0", "n1", "n2", "n3"]
    found = try_pairs(rank, names, tmp_path, seconds=30, gpus=0, gone=7)
    assert [trial.get("late", False) for trial in found["trials"]] == [True, False]
    assert tried == [pytest.approx(17, abs=1)]
    found = try_pairs(rank, names, tmp_path, seconds=30, gpus=0, gone=33)
    assert [trial.get("late", False) for trial in found["trials"]] == [True, True]
    assert "alone" not in found
    assert json.loads((tmp_path / "n0.json").read_text()) == found


def test_a_process_that_hangs_or_dies_is_a_cause() -> None:
    def hang() -> float:
        os.kill(os.getpid(), signal.SIGSTOP)
        return 1.0

    def die() -> float:
        os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    answers = pairs._in_processes([hang, die, lambda: 2.0], 1)
    assert answers == ["no answer within 1 s", "the process died without a word", 2.0]
