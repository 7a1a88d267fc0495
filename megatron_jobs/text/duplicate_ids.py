"""Ids that several records have: counted over any number of units, and made different if wished.

Beside its counts each unit leaves ids/N.u64, the sorted 64-bit hashes of the ids of its documents.
They are merged range by range of the hashes, so that some 16 million are held at a time. A
collision of hashes (1 in 37 at 10^9 documents) counts as a duplicate. Ids that look as if they had
been made different (NAME#2) are in ids/N.taken as well: none is given a second time.
"""

import hashlib
import itertools
import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from megatron_jobs.runtime.files import whole_file
from megatron_jobs.text.shards import COUNTS, DOCUMENTS, read_shard, shard_name, write_shard

IDS = "ids"
TAKEN = ".taken"
AT_ONCE = 1 << 24
"""Hashes in memory; each takes some 40 bytes while they are sorted."""
EXAMPLES = 10
NUMBERED = re.compile(r"#\d+\Z")

Hashes = NDArray[np.uint64]


def id_hash(name: str) -> int:
    """64 bits of an id, the same on every machine."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class IdList:
    """The ids of a unit's documents."""

    def __init__(self) -> None:
        self.hashes, self.taken = array("Q"), array("Q")

    def add(self, name: str) -> None:
        """One more."""
        self.hashes.append(id_hash(name))
        if NUMBERED.search(name):
            self.taken.append(self.hashes[-1])

    def write(self, folder: Path, unit: int) -> None:
        """Leave them in `folder`, and begin anew."""
        path = id_file(folder, unit)
        for file, hashes in ((path, self.hashes), (path.with_suffix(TAKEN), self.taken)):
            found = np.sort(np.array(hashes, np.uint64))
            with whole_file(file) as part:
                part.write_bytes(found.tobytes())
        self.hashes, self.taken = array("Q"), array("Q")


def id_file(folder: Path, unit: int) -> Path:
    """Where a unit's hashes are, below its task's folder."""
    return folder / IDS / f"{unit:06d}.u64"


class Duplicates:
    """What several documents are called alike.

    Args:
        files: the id files by unit.
    """

    def __init__(self, files: dict[int, Path], at_once: int = AT_ONCE) -> None:
        self.units = sorted(files)
        self.files = [files[unit] for unit in self.units]
        total = sum(file.stat().st_size for file in self.files) // 8
        self.ranges = max(1, -(-total // at_once))
        self.count = 0
        """Documents whose id another one had before."""
        self.first: dict[int, dict[int, int]] = {}
        """Unit -> hash -> how many before the unit are called so, of ids that several have."""
        self.examples: dict[int, int] = {}
        """Hash -> how many documents are called so, of some."""

    def find(self, *, table: bool) -> None:
        """Count them; with `table`, also fill in where they are."""
        bounds = [(1 << 64) * i // self.ranges for i in range(self.ranges + 1)]
        for low, high in itertools.pairwise(bounds):
            hashes, units = self._between(low, high)
            self.count += int((hashes[1:] == hashes[:-1]).sum())
            for value, where in _runs(hashes, units):
                if len(self.examples) >= EXAMPLES and not table:
                    break
                self._note(value, where)

    def _note(self, value: int, where: list[int]) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples[value] = len(where)
        for before, unit in reversed(list(enumerate(where))):
            self.first.setdefault(self.units[unit], {})[value] = before

    def _between(self, low: int, high: int) -> tuple[Hashes, NDArray[np.int64]]:
        """Hashes in [low, high), sorted, with the place of each one's unit."""
        parts = []
        for file in self.files:
            found = _mapped(file)  # one at a time: each takes a descriptor
            start = np.searchsorted(found, np.uint64(low))
            end = len(found) if high >> 64 else np.searchsorted(found, np.uint64(high))
            parts.append(np.array(found[start:end]))
        hashes = np.concatenate(parts) if parts else np.empty(0, np.uint64)
        units = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        order = np.argsort(hashes, kind="stable")
        return hashes[order], units[order]

    def named(self, folder: Path) -> dict[str, int]:
        """Examples: id -> documents that have it, from the shards in `folder`."""
        found: dict[str, int] = {}
        for unit, hashes in sorted(self.first.items()):
            wanted = self.examples.keys() & hashes.keys() - set(map(id_hash, found))
            for record in _records(folder, unit) if wanted else ():
                value = id_hash(record["id"])
                if value in wanted:
                    found[record["id"]] = self.examples[value]
        return dict(sorted(found.items()))

    def rename(self, folder: Path) -> None:
        """All but the first of a name are called NAME#2, NAME#3, ...; in the shards of `folder`.

        A name that some document has of its own is left out.
        """
        marked = [_mapped(file.with_suffix(TAKEN)).tolist() for file in self.files]
        taken = frozenset(itertools.chain.from_iterable(marked))
        for unit, before in sorted(self.first.items()):
            seen = dict(before)
            for shard in _shards(folder, unit):
                _rename_in(shard, seen, taken)


def _runs(hashes: Hashes, units: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """(hash, units of all that have it) of those that several have."""
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    at = 0
    while at < len(same):
        start = end = int(same[at])
        while at < len(same) and same[at] == end:
            end, at = end + 1, at + 1
        yield int(hashes[start]), units[start : end + 1].tolist()


def _rename_in(shard: Path, seen: dict[int, int], taken: frozenset[int]) -> None:
    """Rewrite a shard; `seen` counts, by hash, those of a name that came before."""
    with write_shard(shard) as out:
        for line in read_shard(shard):
            out.write(_renamed(line, seen, taken) + b"\n")


def _renamed(line: bytes, seen: dict[int, int], taken: frozenset[int]) -> bytes:
    record = orjson.loads(line)
    value = id_hash(record["id"])
    if value not in seen:
        return line
    seen[value] += 1
    if seen[value] == 1:
        return line
    return orjson.dumps(record | {"id": _nth_name(record["id"], seen[value], taken)})


def _nth_name(name: str, count: int, taken: frozenset[int]) -> str:
    """NAME#2 for the second of a name, and so on; past those that are taken."""
    names = (f"{name}#{number}" for number in itertools.count(2))
    free = (found for found in names if id_hash(found) not in taken)
    return next(itertools.islice(free, count - 2, None))


def _records(folder: Path, unit: int) -> Iterator[dict[str, Any]]:
    for shard in _shards(folder, unit):
        yield from map(orjson.loads, read_shard(shard))


def _shards(folder: Path, unit: int) -> list[Path]:
    """A unit's shards of documents: one, or one for each value that they are divided by."""
    return sorted((folder / DOCUMENTS).rglob(shard_name(unit)))


def _mapped(path: Path) -> Hashes:
    if not path.exists() or not path.stat().st_size:
        return np.empty(0, np.uint64)
    return np.asarray(np.memmap(path, np.uint64, mode="r"))


def id_files(tasks: Sequence[Path]) -> dict[int, Path]:
    """The id files of all tasks, by unit; of units that are done."""
    files = (path for task in tasks for path in (task / IDS).glob("*.u64"))
    return {
        int(path.stem): path
        for path in files
        if (path.parents[1] / COUNTS / f"{path.stem}.json").exists()
    }
