"""Bloom filters against the exact sets of keys that they stand for."""

from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import bloom_duplicates, deduplicate
from megatron_jobs.text.copies.bloom import key_rate
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


def test_false_positives_are_as_many_as_allowed(tmp_path: Path) -> None:
    """No two documents alike: what goes is an error, and most come when the filter is full."""
    planted_corpus(tmp_path / "in")
    run_chain(tmp_path / "in", tmp_path)
    folder = tmp_path / "fingerprint/fingerprints"
    true = len(exact(Fingerprints(folder)))
    config = bloom_duplicates.Config(fingerprints=folder, false_positives=0.3)
    found = bloom_duplicates.run(config, Rank(), tmp_path / "loose")["removed"]
    assert true < found < true + 0.3 * 160
    wide = bloom_duplicates.Config(fingerprints=folder, false_positives=0.3, expected=16_000)
    assert bloom_duplicates.run(wide, Rank(), tmp_path / "wide")["removed"] == true


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
