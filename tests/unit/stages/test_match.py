"""Edges against pairs found by brute force; verification; the estimated recall."""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_jobs.runtime.files import read_json
from megatron_jobs.stages import fingerprint, match
from megatron_jobs.text.copies.letters import make_shingles
from megatron_jobs.text.copies.recall import BINS, bin_of, chance, estimated_recall
from megatron_jobs.text.copies.store import Fingerprints
from tests.unit.stages.copies import planted_corpus, run_tasks


def taken(tmp_path: Path, **settings: Any) -> tuple[Path, list[dict[str, Any]]]:
    """Fingerprints of a corpus, and its records."""
    records = planted_corpus(tmp_path / "in")
    config = fingerprint.Config(
        input=(tmp_path / "in",), unit_mb=0.05, max_quarantined_share=0.2, **settings
    )
    run_tasks(fingerprint, config, tmp_path / "fingerprint", 1)
    return tmp_path / "fingerprint/fingerprints", records


def edges_in(folder: Path) -> set[tuple[int, int]]:
    found = [np.load(file) for file in sorted((folder / "edges").glob("*.npy"))]
    return set(map(tuple, np.concatenate(found).tolist()))


def similar(records: list[dict[str, Any]], least: float) -> set[tuple[int, int]]:
    shingles = make_shingles(fingerprint.Config(input=("x",)))
    texts = [record["text"] for record in records]
    pairs = ((i, j) for i in range(len(texts)) for j in range(i))
    return {(i, j) for i, j in pairs if shingles.jaccard(texts[i], texts[j]) >= least}


@pytest.mark.parametrize(("partitions", "tasks"), [(1, 1), (7, 1), (0, 3), (5, 2)])
def test_items_that_share_a_key_are_joined(tmp_path: Path, partitions: int, tasks: int) -> None:
    prints, _ = taken(tmp_path)
    config = match.Config(fingerprints=prints, partitions=partitions, examples=4)
    numbers = run_tasks(match, config, tmp_path / "match", tasks)
    keys, items = Fingerprints(prints).partition(0, 1)
    runs = defaultdict(set)
    for key, item in zip(keys.tolist(), items.tolist(), strict=True):
        runs[key].add(item)
    wanted = {(item, min(run)) for run in runs.values() for item in run if item != min(run)}
    assert edges_in(tmp_path / "match") == wanted
    assert numbers["partitions"] == (partitions or tasks)
    report = read_json(tmp_path / "match/matches.json")
    assert sum(report["shared_keys_by_similarity"]) == sum(len(run) - 1 for run in runs.values())
    first = run_tasks(match, config.model_copy(update={"partitions": 1}), tmp_path / "other", 1)
    assert read_json(tmp_path / "other/matches.json")["examples"] == report["examples"]
    assert first["estimated_recall"] == pytest.approx(numbers["estimated_recall"])


def families(path: Path) -> list[dict[str, Any]]:
    """Documents of which those of a family are copies of no other, but of a text not here."""
    drawn = random.Random(1)
    words = ["".join(drawn.choices("abcdefgh", k=6)) for _ in range(3000)]
    records = []
    for family in range(8):
        base = drawn.choices(words, k=200)
        for member in range(15):
            text = list(base)
            for place in drawn.sample(range(200), 3):
                text[place] = drawn.choice(words)
            records.append({"id": f"{family}.{member}", "text": " ".join(text)})
    drawn.shuffle(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


def components(edges: set[tuple[int, int]], items: int) -> list[int]:
    """The lowest item that each one is joined with, by the definition."""
    lowest = list(range(items))
    for _ in range(items):
        for high, low in edges:
            lowest[high] = lowest[low] = min(lowest[high], lowest[low])
    return lowest


def test_pairs_are_verified_by_their_texts(tmp_path: Path) -> None:
    """Joined are those that all pairs with a key in common join when their texts are alike."""
    records = families(tmp_path / "in.jsonl")
    taken = fingerprint.Config(input=(tmp_path / "in.jsonl",))
    run_tasks(fingerprint, taken, tmp_path / "fingerprint", 1)
    prints = tmp_path / "fingerprint/fingerprints"
    config = match.Config(fingerprints=prints, verify="exact", threshold=0.75, partitions=3)
    run_tasks(match, config, tmp_path / "match", 1)
    runs = defaultdict(set)
    keys, items = Fingerprints(prints).partition(0, 1)
    for key, item in zip(keys.tolist(), items.tolist(), strict=True):
        runs[key].add(item)
    sharing = {(i, j) for run in runs.values() for i in run for j in run if i > j}
    found, true = edges_in(tmp_path / "match"), sharing & similar(records, 0.75)
    assert found <= true
    assert components(found, len(records)) == components(true, len(records))
    assert 50 < len(true) < len(sharing) - 50
    stars = {(i, min(run)) for run in runs.values() for i in run if i != min(run)}
    assert components(stars & true, len(records)) != components(true, len(records))


def test_pairs_are_verified_by_their_signatures(tmp_path: Path) -> None:
    prints, records = taken(tmp_path, bands=60, rows=2)
    config = match.Config(fingerprints=prints, verify="signature", threshold=0.7)
    run_tasks(match, config, tmp_path / "match", 1)
    found = edges_in(tmp_path / "match")
    assert similar(records, 0.8) <= found <= similar(records, 0.55)


def test_simhashes_that_differ_in_few_bits_are_joined(tmp_path: Path) -> None:
    prints, records = taken(tmp_path, method="simhash", ngram=1, differing_bits=6, blocks=8)
    run_tasks(match, match.Config(fingerprints=prints), tmp_path / "match", 1)
    values = Fingerprints(prints).signatures(np.arange(len(records))).view(np.uint64)[:, 0].tolist()
    pairs = ((i, j) for i in range(len(values)) for j in range(i))
    near = {(i, j) for i, j in pairs if (values[i] ^ values[j]).bit_count() <= 6}
    found = edges_in(tmp_path / "match")
    assert found <= near
    assert len(near) > 10
    alone = set(range(len(values))) - {i for pair in near for i in pair}
    assert alone == set(range(len(values))) - {i for pair in found for i in pair}


def test_examples_show_their_texts(tmp_path: Path) -> None:
    prints, records = taken(tmp_path)
    run_tasks(match, match.Config(fingerprints=prints, examples=5), tmp_path / "match", 1)
    texts = {record["id"]: record["text"] for record in records}
    shown = json.loads((tmp_path / "match/matches.json").read_text())["examples"]
    assert len(shown) == 5
    for pair in shown:
        one, other = pair["ids"]
        assert pair["texts"] == [texts[one][:200], texts[other][:200]]
        exact = make_shingles(Fingerprints(prints).settings).jaccard(texts[one], texts[other])
        assert pair["jaccard"] == round(exact, 4)
        assert abs(pair["estimated_jaccard"] - exact) < 0.2


def test_recall_is_estimated_from_the_keys_that_are_shared() -> None:
    """Pairs of known similarities, found as the formula says: the estimate is the true share."""
    drawn = np.random.default_rng(0)
    bands, rows = 14, 8
    similarity = drawn.uniform(0.6, 1, 300_000)
    keys = drawn.binomial(bands, similarity**rows)
    shared = np.bincount(bin_of(similarity), weights=keys, minlength=BINS)
    for least in (0.7, 0.8, 0.9):
        chosen = similarity >= least
        found = estimated_recall(shared, bands=bands, rows=rows, least=least)
        assert found == pytest.approx((keys[chosen] > 0).mean(), abs=0.005)
    half = chance(np.array([(1 - 0.5 ** (1 / bands)) ** (1 / rows)]), bands=bands, rows=rows)
    assert half == pytest.approx(0.5)
    assert estimated_recall(np.zeros(BINS), bands=bands, rows=rows, least=0.7) is None


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    config = match.Config(fingerprints=tmp_path, partitions=-1, threshold=2, most_compared=0)
    assert dict(config.problems()) == {
        "partitions": "-1 is negative; 0 chooses by memory_mb",
        "threshold": "2.0 must be from 0 to 1",
        "most_compared": "0 must be at least 1",
    }
