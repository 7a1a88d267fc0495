"""Fingerprints on disk against those of texts in memory; tasks, partitions, kills."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import fingerprint
from megatron_jobs.stages.fingerprint import Config, run
from megatron_jobs.text.copies import store
from megatron_jobs.text.copies.letters import make_shingles
from megatron_jobs.text.copies.store import Fingerprints
from tests.unit.stages.copies import planted_corpus, run_tasks


def settings(corpus: Path, **more: object) -> Config:
    return Config(input=(corpus,), unit_mb=0.05, max_quarantined_share=0.2, **more)


def test_keys_and_signatures_are_those_of_the_texts(tmp_path: Path) -> None:
    records = planted_corpus(tmp_path / "in")
    numbers = run(settings(tmp_path / "in", bands=5, rows=3), Rank(), tmp_path)
    assert numbers["documents"] == len(records) == 160
    assert numbers["quarantined"] == 3
    assert numbers["keys"] == 160 * 5
    assert numbers["text_bytes"] == sum(len(record["text"].encode()) for record in records)
    prints = Fingerprints(tmp_path / "fingerprints")
    assert len(prints.units) > 4
    texts = [record["text"] for record in records]
    keys, signatures, _ = make_shingles(prints.settings).minhash(texts, bands=5, rows=3, seed=1)
    np.testing.assert_array_equal(prints.signatures(np.arange(160)), signatures)
    np.testing.assert_array_equal(
        prints.signatures(np.array([3, 77, 150])), signatures[[3, 77, 150]]
    )
    wanted = sorted((int(key), i) for i in range(160) for key in keys[i])
    for of in (1, 3, 64):
        parts = [prints.partition(number, of) for number in range(of)]
        found = [(int(k), int(i)) for some in parts for k, i in zip(*some, strict=True)]
        assert sorted(found) == wanted
        assert all(int(k) * of >> 64 == n for n, (ks, _) in enumerate(parts) for k in ks)
    rows = [row for unit in range(len(prints.units)) for row in prints.rows(unit)]
    assert [row.id for row in rows] == [record["id"] for record in records]
    assert [row.source for row in rows] == [record["source"] for record in records]


@pytest.mark.parametrize("method", ["minhash", "simhash", "exact", "line", "sentence"])
def test_tasks_give_what_one_gives(tmp_path: Path, method: str) -> None:
    planted_corpus(tmp_path / "in", originals=30)
    config = settings(tmp_path / "in", method=method, least_letters=20)
    one = run_tasks(fingerprint, config, tmp_path / "one", 1)
    assert run_tasks(fingerprint, config, tmp_path / "many", 4) == one
    assert tree_hash(tmp_path / "many/fingerprints") == tree_hash(tmp_path / "one/fingerprints")


def test_what_is_no_record_is_weighed_over_all_tasks(tmp_path: Path) -> None:
    """The first unit holds nothing but faults: its task ends well, the job as allowed."""
    records = planted_corpus(tmp_path / "in", originals=30, files=1)
    file = tmp_path / "in/0.jsonl"
    file.write_text((" " * 2000 + "no json\n") * 3 + file.read_text())
    config = settings(tmp_path / "in").model_copy(update={"unit_mb": 0.005})
    assert run_tasks(fingerprint, config, tmp_path / "out", 4)["quarantined"] == 4
    strict = config.model_copy(update={"max_quarantined_share": 0.05})
    found = f"input: 4 of {len(records) + 4} are no records, at most 5.0% may be"
    with pytest.raises(UserError, match=re.escape(found)):
        run_tasks(fingerprint, strict, tmp_path / "strict", 4)


def test_units_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    planted_corpus(tmp_path / "in", originals=30)
    config = settings(tmp_path / "in")
    run(config, Rank(), tmp_path)
    out = tmp_path / "fingerprints"
    whole, kept = tree_hash(out), (out / "000001.keys").stat().st_mtime_ns
    (out / "000000.json").unlink()
    (out / "000000.keys").write_bytes(b"half")
    run(config, Rank(), tmp_path)
    assert tree_hash(out) == whole
    assert (out / "000001.keys").stat().st_mtime_ns == kept
    run(config.model_copy(update={"seed": 2}), Rank(), tmp_path)
    assert tree_hash(out) != whole


def test_keys_in_blocks_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted_corpus(tmp_path / "in")
    config = settings(tmp_path / "in")
    run(config, Rank(), tmp_path / "one")
    monkeypatch.setattr(store, "BLOCK", 100)
    monkeypatch.setattr(fingerprint, "BATCH_TEXTS", 3)
    run(config, Rank(), tmp_path / "many")
    one, many = (Fingerprints(tmp_path / name / "fingerprints") for name in ("one", "many"))
    assert [len(unit.blocks) for unit in one.units] == [1] * len(one.units)
    assert all(len(unit.blocks) > 2 for unit in many.units[:-1])
    np.testing.assert_array_equal(one.bases, many.bases)
    everything = np.arange(one.items)
    np.testing.assert_array_equal(one.signatures(everything), many.signatures(everything))
    for unit in range(len(one.units)):
        for low, high in ((0, 2**64), (2**63, 2**63 + 2**62), (5, 2**52)):
            pairs = zip(one.keys_of(unit, low, high), many.keys_of(unit, low, high), strict=True)
            for wanted, found in pairs:
                np.testing.assert_array_equal(wanted, found)
        assert list(one.rows(unit)) == list(many.rows(unit))


def test_files_of_another_size_are_refused(tmp_path: Path) -> None:
    planted_corpus(tmp_path / "in", originals=9)
    run(settings(tmp_path / "in"), Rank(), tmp_path)
    path = tmp_path / "fingerprints/000000.keys"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        DataError, match=r"000000\.keys: has not the size of \d+ keys; make it again"
    ):
        Fingerprints(tmp_path / "fingerprints").partition(0, 1)


def test_a_text_without_letters_has_no_keys(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": "?!"}\n{"text": "one"}\n')
    for method in ("minhash", "simhash", "exact"):
        config = Config(input=(tmp_path / "a.jsonl",), method=method)
        numbers = run(config, replace(Rank()), tmp_path / method)
        assert (numbers["documents"], numbers["items"]) == (3, 3)
        found = Fingerprints(tmp_path / method / "fingerprints").partition(0, 1)[1]
        assert set(found.tolist()) == {2}


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    config = Config(input=(tmp_path,), bands=0, seed=-1, differing_bits=5, blocks=5)
    assert dict(config.problems()) == {
        "bands": "0 must be at least 1",
        "seed": "-1 must be from 0 to 18446744073709551615",
        "differing_bits": "5 of 5 blocks; must be from 0 to blocks - 1, and blocks at most 64",
    }


def test_what_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no about\.json; give the output of a fingerprint job"):
        Fingerprints(tmp_path)
    (tmp_path / "a.jsonl").write_text("none\n" * 9 + '{"text": "a"}\n')
    with pytest.raises(UserError, match=r"input: 9 of 10 are no records, at most 5\.0% may be"):
        run(Config(input=(tmp_path / "a.jsonl",)), Rank(), tmp_path / "out")
