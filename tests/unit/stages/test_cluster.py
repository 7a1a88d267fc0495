"""Clusters over any number of ranks against union by hand; what stays; the report."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.runtime.files import read_json, tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import cluster
from megatron_jobs.text.copies.cluster_work import score_of, unit_shares
from megatron_jobs.text.copies.store import Row
from megatron_jobs.text.shards import read_shard, shards_below
from tests.unit.stages.copies import planted_corpus, run_chain, run_ranks


def removed_ids(folder: Path, ids: list[str], bases: list[int]) -> dict[str, str]:
    """Id of each document that goes -> id of the one that stays."""
    found = {}
    for unit, shard in enumerate(shards_below(folder / "removals")):
        for line in read_shard(shard):
            removal = json.loads(line)
            found[ids[bases[unit] + removal["row"]]] = removal["kept"]
    return found


def clusters_by_hand(out: Path, count: int) -> list[list[int]]:
    """Join what the edges join, one after the other."""
    of = list(range(count))
    for file in (out / "match/edges").glob("*.npy"):
        for a, b in np.load(file).tolist():
            low, high = sorted((of[a], of[b]))
            of = [low if cluster == high else cluster for cluster in of]
    members = defaultdict(list)
    for item, name in enumerate(of):
        members[name].append(item)
    return [some for some in members.values() if len(some) > 1]


@pytest.mark.parametrize("keep", ["first", "longest", "score"])
def test_one_of_each_cluster_stays(tmp_path: Path, keep: str) -> None:
    records = planted_corpus(tmp_path / "in")
    run_chain(tmp_path / "in", tmp_path, ranks=3, keep=keep, score="quality", planted="copy_of")
    rank_by = {
        "first": lambda i: 0,
        "longest": lambda i: len(records[i]["text"].encode()),
        "score": lambda i: records[i]["quality"],
    }[keep]
    wanted = {}
    for members in clusters_by_hand(tmp_path, len(records)):
        best = max(members, key=lambda i: (rank_by(i), -i))
        wanted |= {records[i]["id"]: records[best]["id"] for i in members if i != best}
    facts = read_json(tmp_path / "fingerprint/fingerprints/about.json")["units"]
    bases = np.cumsum([0, *(unit["items"] for unit in facts)]).tolist()
    ids = [record["id"] for record in records]
    assert removed_ids(tmp_path / "cluster", ids, bases) == wanted
    assert len(wanted) > 30
    report = read_json(tmp_path / "cluster/duplicates.json")
    assert report["removed"] == len(wanted)
    assert report["planted"] == 40
    assert report["planted_found"] == sum(
        any({record["id"], record["copy_of"]} <= {ids[i] for i in members}
            for members in clusters_by_hand(tmp_path, len(records)))
        for record in records if "copy_of" in record
    )  # fmt: skip
    assert report["sources"] == {"a": 60, "b": 60, "c": 40}
    assert sum(report["removed_by_source"].values()) == len(wanted)
    assert len(report["pairs"]["examples"]) == 3


@pytest.mark.parametrize("ranks", [2, 5, 30])
def test_ranks_give_what_one_gives(tmp_path: Path, ranks: int) -> None:
    planted_corpus(tmp_path / "in")
    run_chain(tmp_path / "in", tmp_path, planted="copy_of")
    prints = tmp_path / "fingerprint/fingerprints"
    config = cluster.Config(fingerprints=prints, edges=tmp_path / "match/edges")
    run_ranks(cluster, config, tmp_path / "many", ranks)
    for name in cluster.OUTPUTS:
        assert tree_hash(tmp_path / "many" / name) == tree_hash(tmp_path / "cluster" / name)


def test_a_job_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    planted_corpus(tmp_path / "in", originals=30)
    run_chain(tmp_path / "in", tmp_path)
    prints = tmp_path / "fingerprint/fingerprints"
    config = cluster.Config(fingerprints=prints, edges=tmp_path / "match/edges")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cluster/removals").iterdir()}
    numbers = cluster.run(config, Rank(), tmp_path / "cluster")
    assert numbers["removed"] == read_json(tmp_path / "cluster/duplicates.json")["removed"] > 5
    about = tmp_path / "cluster/removals/about.json"
    assert all(p.stat().st_mtime_ns == time for p, time in before.items() if p != about)


def test_what_a_document_is_chosen_by() -> None:
    row = Row("a", bytes=7, date="2024-05-01T10:00:00Z", score=0.5)
    assert score_of(row, "longest") == 7
    assert score_of(row, "score") == 0.5
    assert score_of(row, "newest") - score_of(Row("b", date="2024-05-01"), "newest") == 36_000
    nobody_says = {score_of(Row("b"), "newest"), score_of(Row("b"), "score")}
    assert nobody_says == {-np.inf}
    assert score_of(Row("b", score=float("nan")), "score") == -np.inf


def test_shares_are_near_equal_and_whole() -> None:
    bases = np.array([0, 10, 20, 30, 1000, 1010])
    assert unit_shares(bases, 3).tolist() == [0, 4, 4, 5]
    assert unit_shares(bases, 1).tolist() == [0, 5]
    assert unit_shares(np.array([0, 4]), 3).tolist() == [0, 1, 1, 1]
    assert unit_shares(np.array([0, 0, 0]), 2).tolist() == [0, 0, 2]


def test_spans_stay_where_they_are_first(tmp_path: Path) -> None:
    planted_corpus(tmp_path / "in", originals=9)
    run_chain(tmp_path / "in", tmp_path, method="sentence")
    prints = tmp_path / "fingerprint/fingerprints"
    config = cluster.Config(fingerprints=prints, edges=tmp_path / "match/edges", keep="longest")
    assert list(config.problems()) == [
        ("keep", "longest, but a repeated sentence stays where it is first: first")
    ]
