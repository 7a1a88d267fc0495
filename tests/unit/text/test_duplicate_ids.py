"""Ids that several documents have, against counting them in one dictionary."""

import json
import random
import resource
from collections import Counter
from pathlib import Path

import pytest

from megatron_jobs.text.duplicate_ids import Duplicates, IdList, id_file, id_hash
from megatron_jobs.text.shards import read_shard, shard_name, shards_below, write_shard


def corpus(folder: Path, units: int, names: int) -> dict[int, list[str]]:
    """Units of up to 30 documents, called by some of so many names; every other one is divided."""
    noise = random.Random(names)
    found = {}
    for unit in range(units):
        found[unit] = [f"n{noise.randrange(names)}" for _ in range(noise.randrange(30))]
        ids = IdList()
        place = folder / "documents" / ("part" if unit % 2 else "")
        with write_shard(place / shard_name(unit)) as out:
            for name in found[unit]:
                ids.add(name)
                out.write(json.dumps({"id": name, "text": "x"}).encode() + b"\n")
        ids.write(folder, unit)
    return found


def ids_in(folder: Path, units: int) -> list[str]:
    shards = [next((folder / "documents").rglob(shard_name(unit))) for unit in range(units)]
    return [json.loads(line)["id"] for shard in shards for line in read_shard(shard)]


@pytest.mark.parametrize("names", [3, 60, 10**6])
@pytest.mark.parametrize("at_once", [1, 50, 10**6])
def test_against_a_dictionary(tmp_path: Path, names: int, at_once: int) -> None:
    found = corpus(tmp_path, 12, names)
    every = [name for unit in range(12) for name in found[unit]]
    counts = Counter(every)
    duplicates = Duplicates({unit: id_file(tmp_path, unit) for unit in found}, at_once)
    duplicates.find(table=True)
    assert duplicates.count == len(every) - len(counts)
    examples = duplicates.named(tmp_path)
    assert len(examples) == min(10, sum(count > 1 for count in counts.values()))
    assert all(counts[name] == count for name, count in examples.items())
    wanted, seen = [], Counter[str]()
    for name in every:
        seen[name] += 1
        wanted.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    for _ in range(2):  # the second time there is nothing left to do
        duplicates.rename(tmp_path)
        assert ids_in(tmp_path, 12) == wanted


def test_names_that_are_taken_are_given_to_nobody(tmp_path: Path) -> None:
    given = [["a", "a#2", "a"], ["a#4", "a", "a#2", "a", "b#2"]]
    for unit, names in enumerate(given):
        ids = IdList()
        with write_shard(tmp_path / "documents" / shard_name(unit)) as out:
            for name in names:
                ids.add(name)
                out.write(json.dumps({"id": name, "text": "x"}).encode() + b"\n")
        ids.write(tmp_path, unit)
    duplicates = Duplicates({unit: id_file(tmp_path, unit) for unit in (0, 1)})
    duplicates.find(table=True)
    for _ in range(2):
        duplicates.rename(tmp_path)
        found = ids_in(tmp_path, 2)
        assert found == ["a", "a#2", "a#3", "a#4", "a#5", "a#2#2", "a#6", "b#2"]


def test_more_units_than_files_can_be_open(tmp_path: Path) -> None:
    found = corpus(tmp_path, 60, 10)
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 20, most))
    try:
        duplicates = Duplicates({unit: id_file(tmp_path, unit) for unit in found})
        duplicates.find(table=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
    assert duplicates.count == sum(map(len, found.values())) - 10


def test_nothing_at_all(tmp_path: Path) -> None:
    duplicates = Duplicates({})
    duplicates.find(table=True)
    assert (duplicates.count, duplicates.named(tmp_path)) == (0, {})
    assert shards_below(tmp_path) == []


def test_hashes_are_the_same_everywhere() -> None:
    assert id_hash("a").to_bytes(8, "little").hex() == "40f89e395b66422f"  # printf a | b2sum -l 64
    assert id_hash("a") != id_hash("b")
    id_hash("\ud800")
