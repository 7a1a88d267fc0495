"""Components and keepers over ranks that are processes, against one that sees all; kills too."""

import os
import signal
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.text.copies.arrays import I64
from megatron_jobs.text.copies.clusters import choose
from megatron_jobs.text.copies.components import component_labels
from megatron_jobs.text.copies.exchange import Exchange


def slow_labels(count: int, edges: I64) -> list[int]:
    """Search from each item in turn."""
    neighbours = defaultdict(list)
    for a, b in edges.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    labels = [-1] * count
    for start in range(count):
        waiting = [start] if labels[start] < 0 else []
        while waiting:
            item = waiting.pop()
            if labels[item] < 0:
                labels[item] = start
                waiting += neighbours[item]
    return labels


def falling(edges: I64) -> I64:
    edges = edges[edges[:, 0] != edges[:, 1]]
    return np.sort(edges, axis=1)[:, ::-1].astype(np.int64).copy()


def graph(kind: str, count: int, seed: int) -> I64:
    drawn = np.random.default_rng(seed)
    names = drawn.permutation(count)
    if kind == "path":  # in random order: as long as can be
        return falling(np.stack([names[1:], names[:-1]], axis=1))
    if kind == "stars":
        return falling(np.stack([names, names[drawn.integers(0, 9, count)]], axis=1))
    if kind == "none":
        return np.zeros((0, 2), np.int64)
    return falling(drawn.integers(0, count, (int(count * 0.6), 2)))


def end_at(exchange: Exchange, stop: str) -> None:
    """Rank 1 is killed before it finishes a step, the others where they wait for it."""
    name = "finish" if exchange.rank == 1 else "wait"
    real = getattr(exchange, name)

    def die(step: str, **facts: float) -> object:
        if step == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(step, **facts)

    setattr(exchange, name, die)


def labels_over(folder: Path, world: int, count: int, edges: I64, stop: str = "") -> int:
    """The labels of each rank in `folder`, made by processes; `stop`: rank 1 dies in that step."""
    cuts = np.sort(np.random.default_rng(world).integers(0, count + 1, world - 1))
    bounds = np.concatenate([[0], cuts, [count]]).astype(np.int64)

    def work(rank: Rank) -> None:
        exchange = Exchange(folder / "steps", rank.index, bounds)
        if stop:
            end_at(exchange, stop)
        labels = component_labels(exchange, [edges[rank.index :: rank.world].copy()])
        np.save(folder / f"{rank.index}.npy", labels)

    folder.mkdir(exist_ok=True)
    return fork_ranks(work, world, error_file=lambda i: folder / f"{i}.txt").status


def all_labels(folder: Path, world: int) -> list[int]:
    return np.concatenate([np.load(folder / f"{i}.npy") for i in range(world)]).tolist()


@pytest.mark.parametrize(
    ("kind", "world"),
    [("random", 1), ("random", 7), ("path", 1), ("path", 8), ("stars", 4), ("none", 3)],
)
def test_ranks_find_what_one_finds(tmp_path: Path, kind: str, world: int) -> None:
    count = 3000
    edges = graph(kind, count, seed=world)
    assert labels_over(tmp_path, world, count, edges) == 0
    assert all_labels(tmp_path, world) == slow_labels(count, edges)


def test_a_path_in_order_takes_one_round_and_a_random_one_no_more_than_ranks(
    tmp_path: Path,
) -> None:
    count = 20_000
    ordered = np.stack([np.arange(1, count), np.arange(count - 1)], axis=1)
    assert labels_over(tmp_path / "a", 6, count, ordered) == 0
    assert len(list((tmp_path / "a/steps").glob("link-*"))) == 1
    assert set(all_labels(tmp_path / "a", 6)) == {0}
    assert labels_over(tmp_path / "b", 6, count, graph("path", count, seed=2)) == 0
    assert len(list((tmp_path / "b/steps").glob("link-*"))) <= 6
    assert set(all_labels(tmp_path / "b", 6)) == {0}


@pytest.mark.parametrize("step", ["edges", "link-0000", "link-0001", "ask-0000", "answer-0000"])
def test_what_was_killed_goes_on(tmp_path: Path, step: str) -> None:
    edges = graph("path", 2000, seed=4)
    assert labels_over(tmp_path, 3, 2000, edges, stop=step) == -signal.SIGKILL
    assert not (tmp_path / "1.npy").exists()
    assert labels_over(tmp_path, 3, 2000, edges) == 0
    assert all_labels(tmp_path, 3) == [0] * 2000


@pytest.mark.parametrize("world", [1, 4])
def test_the_best_of_each_cluster_stays(tmp_path: Path, world: int) -> None:
    count = 400
    labels = np.array(slow_labels(count, graph("random", count, seed=9)))
    scores = np.random.default_rng(1).integers(0, 5, count).astype(np.float64)
    scores[::7] = -np.inf
    bounds = np.linspace(0, count, world + 1).astype(np.int64)

    def work(rank: Rank) -> None:
        members = choose(
            Exchange(tmp_path / "steps", rank.index, bounds),
            labels[bounds[rank.index] : bounds[rank.index + 1]],
            scores=lambda items: scores[items],
            ids=lambda items: [f"doc-{item}" for item in items],
        )
        lines = zip(members.items, members.clusters, members.keepers, members.sizes,
                    members.kept_ids, strict=True)  # fmt: skip
        text = "".join(" ".join(map(str, line)) + "\n" for line in lines)
        (tmp_path / f"{rank.index}.members").write_text(text)

    assert fork_ranks(work, world, error_file=lambda i: tmp_path / f"{i}.txt").status == 0
    wanted = []
    for item in range(count):
        cluster = [i for i in range(count) if labels[i] == labels[item]]
        if len(cluster) > 1:
            best = max(cluster, key=lambda i: (scores[i], -i))
            wanted.append(f"{item} {labels[item]} {best} {len(cluster)} doc-{best}\n")
    found = "".join((tmp_path / f"{i}.members").read_text() for i in range(world))
    assert found == "".join(wanted)
