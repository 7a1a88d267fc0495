"""Bloom filters against the exact sets of keys that they stand for."""

import json
import os
import signal
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import bloom_duplicates, deduplicate, fingerprint
from megatron_jobs.text.copies.arrays import I64
from megatron_jobs.text.copies.bloom import FilterSize, key_rate, most_keys
from megatron_jobs.text.copies.store import Fingerprints
from tests.unit.stages.copies import planted_corpus, records_of, run_chain, run_tasks


def exact(prints: Fingerprints) -> set[int]:
    """Items that share a key with an earlier one."""
    keys, items = prints.partition(0, 1)
    first: dict[int, int] = {}
    for key, item in sorted(zip(keys.tolist(), items.tolist(), strict=True), key=lambda e: e[1]):
        first.setdefault(key, item)
    return {item for key, item in zip(keys.tolist(), items.tolist(), strict=True)
            if first[key] != item}  # fmt: skip


@pytest.mark.parametrize(("partitions", "tasks"), [(0, 1), (5, 1), (0, 3)])
def test_what_shares_a_key_with_an_earlier_one_goes(
    tmp_path: Path, partitions: int, tasks: int
) -> None:
    records = planted_corpus(tmp_path / "in")
    run_chain(tmp_path / "in", tmp_path)
    folder = tmp_path / "fingerprint/fingerprints"
    config = bloom_duplicates.Config(fingerprints=folder, partitions=partitions)
    numbers = run_tasks(bloom_duplicates, config, tmp_path / "bloom", tasks)
    wanted = {records[item]["id"] for item in exact(Fingerprints(folder))}
    read = {"input": (tmp_path / "in",), "unit_mb": 0.05, "max_quarantined_share": 0.2}
    last = deduplicate.Config(**read, removals=tmp_path / "bloom/removals")
    deduplicate.run(last, Rank(), tmp_path / "out")
    gone = records_of(tmp_path / "out", "rejected")
    assert {record["id"] for record in gone} == wanted
    assert numbers["removed"] == len(wanted) > 30
    assert {r["verdict"]["rule"] for r in gone} == {"duplicate.bloom"}
    assert wanted <= {r["id"] for r in records_of(tmp_path / "deduplicate", "rejected")}


def false_share(size: FilterSize, bands: int) -> float:
    """Of documents without a copy, what goes while a filter of this size fills up: each key is
    found by chance with (1 - e^(-k x / m))^k when x others are in."""
    bits = 8 * size.bytes
    probes = round(bits / size.keys * np.log(2))
    x = np.linspace(0, size.keys, 10_001)
    each = (1 - np.exp(-probes * x / bits)) ** probes
    return float(np.mean(1 - (1 - each) ** bands))


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fingerprints of 8,000 documents that have nothing in common."""
    folder = tmp_path_factory.mktemp("unlike")
    words = (" ".join(f"w{i}x{j}" for j in "abcdefgh") for i in range(8000))
    lines = (json.dumps({"text": text.translate(LETTERS)}) + "\n" for text in words)
    (folder / "in.jsonl").write_text("".join(lines))
    config = fingerprint.Config(input=(folder / "in.jsonl",), unit_mb=0.02)
    assert fingerprint.run(config, Rank(), folder)["keys"] == 8000 * 14
    return folder / "fingerprints"


LETTERS = str.maketrans("0123456789", "klmnopqrst")


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("rate", [0.3, 0.02])
def test_false_positives_are_those_of_the_formula(
    unlike: Path, tmp_path: Path, rate: float, partitions: int
) -> None:
    """No two documents alike: what goes is an error, and most come when the filter is full."""
    rates = {"false_positives": rate, "partitions": partitions}
    config = bloom_duplicates.Config(fingerprints=unlike, **rates)
    numbers = bloom_duplicates.run(config, Rank(), tmp_path / "bloom")
    size = FilterSize(8000 * 14, key_rate(rate, 14))
    share = false_share(size, 14)
    assert 0.1 * rate < share < 0.5 * rate
    sigma = np.sqrt(share / 8000)
    assert abs(numbers["removed"] / 8000 - share) < 4 * sigma + 0.1 * share
    assert numbers["kept"] + numbers["removed"] == numbers["documents"] == 8000
    assert numbers["filter_mb"] * partitions == pytest.approx(size.bytes / 1e6, rel=0.03)
    wide = bloom_duplicates.Config(fingerprints=unlike, **rates, expected=80_000)
    assert bloom_duplicates.run(wide, Rank(), tmp_path / "wide")["removed"] == 0


def test_a_filter_takes_the_memory_that_is_said() -> None:
    for keys, rate in ((1000, 0.01), (123_456, 1e-6)):
        size = FilterSize(keys, rate)
        assert size.make().bits == pytest.approx(8 * size.bytes, abs=1)
    assert (most_keys(14, 1), most_keys(14_000_000, 14)) == (14, 1_003_000)
    drawn = np.random.default_rng(1).integers(0, 5, (2000, 3000))
    counts = (drawn == 0).sum(axis=1)
    assert 0 < (counts > most_keys(3000, 5)).mean() < 0.005


def test_what_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted_corpus(tmp_path / "in", originals=30)
    run_chain(tmp_path / "in", tmp_path)
    prints = tmp_path / "fingerprint/fingerprints"
    config = bloom_duplicates.Config(fingerprints=prints, partitions=3)
    bloom_duplicates.run(config, Rank(), tmp_path / "whole")

    def die(file: IO[bytes], numbers: I64) -> None:
        save(file, numbers)
        file.flush()
        if (tmp_path / "bloom/removals/000001.npy").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    save = np.save
    monkeypatch.setattr(np, "save", die)
    (tmp_path / "bloom").mkdir()
    outcome = fork_ranks(
        lambda rank: bloom_duplicates.run(config, rank, tmp_path / "bloom"),
        1,
        error_file=lambda i: tmp_path / f"error.{i}",
    )
    assert outcome.status == -signal.SIGKILL
    done = {path.name for path in (tmp_path / "bloom/removals").glob("*.npy")}
    assert done == {"000000.npy", "000001.npy"}
    monkeypatch.undo()
    numbers = bloom_duplicates.run(config, Rank(), tmp_path / "bloom")
    assert numbers["removed"] > 5
    assert tree_hash(tmp_path / "bloom/removals") == tree_hash(tmp_path / "whole/removals")


def test_rates_of_keys_make_that_of_a_document() -> None:
    for rate, keys in ((1e-5, 14), (0.3, 14), (0.01, 1)):
        assert 1 - (1 - key_rate(rate, keys)) ** keys == pytest.approx(rate)
    assert -np.log(key_rate(1e-5, 14)) / np.log(2) ** 2 * 14 / 8 == pytest.approx(52, abs=1)


def test_a_range_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    planted_corpus(tmp_path / "in", originals=30)
    run_chain(tmp_path / "in", tmp_path)
    config = bloom_duplicates.Config(
        fingerprints=tmp_path / "fingerprint/fingerprints", partitions=3
    )
    bloom_duplicates.run(config, Rank(), tmp_path / "bloom")
    out = tmp_path / "bloom/removals"
    whole, kept = tree_hash(out), (out / "000001.npy").stat().st_mtime_ns
    (out / "000002.npy").unlink()
    bloom_duplicates.run(config, Rank(), tmp_path / "bloom")
    assert tree_hash(out) == whole
    assert (out / "000001.npy").stat().st_mtime_ns == kept


def test_other_fingerprints_are_refused(tmp_path: Path) -> None:
    planted_corpus(tmp_path / "in", originals=9)
    run_chain(tmp_path / "in", tmp_path, method="exact")
    config = bloom_duplicates.Config(fingerprints=tmp_path / "fingerprint/fingerprints")
    with pytest.raises(UserError, match=r"is of exact, must be of minhash"):
        bloom_duplicates.run(config, Rank(), tmp_path / "bloom")
    bad = config.model_copy(update={"false_positives": 1.0, "expected": -1})
    assert dict(bad.problems()) == {
        "expected": "-1 is negative; 0 chooses it",
        "false_positives": "1.0 must be between 0 and 1",
    }


def test_a_filter_that_is_too_small_is_refused(unlike: Path, tmp_path: Path) -> None:
    config = bloom_duplicates.Config(fingerprints=unlike, expected=7999)
    found = "expected: 7999, but the fingerprints are of 8000 documents; 0 takes as many as there"
    with pytest.raises(UserError, match=found):
        bloom_duplicates.run(config, Rank(), tmp_path)
