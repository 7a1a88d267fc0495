"""Fingerprints on disk: of unit number N of the input,

    N.keys        in blocks, since memory must hold one while it is sorted: [4097] uint64, how many
                  keys come before each 4096th of their range; the keys, uint64, sorted; the items
                  that they are of, uint32, counted in the unit
    N.signatures  [items, width] uint8
    N.jsonl.zst   a line a document: what a report or a choice between copies needs
    N.json        `UnitFacts`, written last: the unit is done

Keys are hashes, spread evenly: any number of partitions of their range is near equally large, and
what a partition needs of a unit is one run of its file.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from megatron_jobs._copies import sort_entries
from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import read_json, whole_file, write_json
from megatron_jobs.text.copies.arrays import I64, U8, U64
from megatron_jobs.text.copies.methods import FingerprintSettings, Prints
from megatron_jobs.text.readers import Piece, ReadRules, Unit
from megatron_jobs.text.shards import read_shard, write_shard

DIRECTORY_BITS = 12
DIRECTORY_BYTES = 8 * ((1 << DIRECTORY_BITS) + 1)
BLOCK = 1 << 22
"""Keys from which on a block is written: some 250 MB are held for it."""
ABOUT = "about.json"


@dataclass(frozen=True)
class UnitFacts:
    """What a unit's files hold."""

    pieces: list[dict[str, Any]]
    """Of the input, as `pieces_of` gives them."""
    documents: int = 0
    items: int = 0
    """Documents, or spans of them."""
    blocks: list[int] = field(default_factory=list)
    """Keys in each block."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """What was no record, by reason."""
    text_bytes: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    """Documents of each source."""

    @property
    def entries(self) -> int:
        """Keys."""
        return sum(self.blocks)

    @property
    def unit(self) -> Unit:
        """What was read."""
        return Unit(tuple(Piece(**{**piece, "path": Path(piece["path"])}) for piece in self.pieces))


@dataclass(frozen=True)
class Row:
    """What is kept of a document beside its fingerprint."""

    id: str
    bytes: int = 0
    """Of its text, in UTF-8."""
    source: str = ""
    date: str = ""
    score: float | None = None
    """The metadata that `score` names."""
    planted: str = ""
    """The id of the document that this is a copy of, where somebody planted it."""


def pieces_of(unit: Unit) -> list[dict[str, Any]]:
    """The pieces of a unit, for JSON."""
    return [{**asdict(piece), "path": str(piece.path)} for piece in unit.pieces]


def write_unit(
    folder: Path,
    number: int,
    unit: Unit,
    *,
    batches: Iterable[tuple[list[Row], Prints]],
    quarantined: dict[str, int],
) -> None:
    """Write all files of a unit.

    Args:
        batches: its documents in order, some at a time.
        quarantined: what was no record, by reason; looked at when all batches have come.
    """
    documents, text_bytes, sources = 0, 0, Counter[str]()
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(write_shard(folder / _name(number, "jsonl.zst")))
        keys = _Keys(stack.enter_context(_whole_stream(folder / _name(number, "keys"))))
        signatures = stack.enter_context(_whole_stream(folder / _name(number, "signatures")))
        for some, prints in batches:
            for row in some:
                rows.write(_row_line(row))
            prints.signatures.tofile(signatures)
            keys.add(prints)
            documents += len(some)
            text_bytes += sum(row.bytes for row in some)
            sources.update(row.source for row in some)
        keys.write_block()
    facts = UnitFacts(
        pieces=pieces_of(unit),
        documents=documents,
        items=keys.items,
        blocks=keys.blocks,
        quarantined=quarantined,
        text_bytes=text_bytes,
        sources=dict(sources),
    )
    write_json(folder / _name(number, "json"), asdict(facts))


@contextlib.contextmanager
def _whole_stream(path: Path) -> Iterator[IO[bytes]]:
    with whole_file(path) as part, part.open("wb") as file:
        yield file


class _Keys:
    """The file of a unit's keys."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.items = file, 0
        self.blocks: list[int] = []
        self.open: list[tuple[U64, I64]] = []
        self.held = 0

    def add(self, prints: Prints) -> None:
        keys = prints.keys[prints.known].ravel()
        known = self.items + np.flatnonzero(prints.known)
        self.open.append((keys, np.repeat(known, prints.keys.shape[1])))
        self.items += len(prints.known)
        self.held += len(keys)
        if self.held >= BLOCK:
            self.write_block()

    def write_block(self) -> None:
        if not self.held:
            return
        keys, items = (np.concatenate(column) for column in zip(*self.open, strict=True))
        self.open.clear()
        sort_entries(keys, items)
        _directory(keys).tofile(self.file)
        keys.tofile(self.file)
        items.astype(np.uint32).tofile(self.file)
        self.blocks.append(self.held)
        self.held = 0


def unit_is_done(folder: Path, number: int) -> bool:
    """Whether a unit's files are whole."""
    return (folder / _name(number, "json")).exists()


def unit_files(number: int) -> list[str]:
    """Their names."""
    return [_name(number, end) for end in ("keys", "signatures", "jsonl.zst", "json")]


class Fingerprints:
    """The fingerprints of all units in a folder.

    Raises: DataError when there are none, or a unit is missing.
    """

    def __init__(self, folder: Path) -> None:
        about = folder / ABOUT
        if not about.exists():
            raise DataError(f"{folder}: has no {ABOUT}; give the output of a fingerprint job")
        self.folder, self.about = folder, read_json(about)
        self.settings = FingerprintSettings(**self.about["settings"])
        self.rules = ReadRules(**self.about["rules"])
        self.units = [UnitFacts(**facts) for facts in self.about["units"]]
        items = [facts.items for facts in self.units]
        self.bases: I64 = np.concatenate([[0], np.cumsum(items)]).astype(np.int64)
        """[units + 1], number of the first item of each unit among those of all."""

    @property
    def items(self) -> int:
        """Of all units."""
        return int(self.bases[-1])

    @property
    def entries(self) -> int:
        """Keys of all units."""
        return sum(facts.entries for facts in self.units)

    def partition(self, number: int, of: int) -> tuple[U64, I64]:
        """The keys of a partition of their range, and the numbers of their items; unit by unit."""
        low, high = (2**64 * number // of, 2**64 * (number + 1) // of)
        parts = [self.keys_of(unit, low, high) for unit in range(len(self.units))]
        keys = [part[0] for part in parts]
        numbers = [part[1] + self.bases[unit] for unit, part in enumerate(parts)]
        if not parts:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        return np.concatenate(keys), np.concatenate(numbers)

    def keys_of(self, unit: int, low: int, high: int) -> tuple[U64, I64]:
        """The keys of a unit from `low` to below `high`, sorted, and their items in the unit."""
        path, blocks = self.folder / _name(unit, "keys"), self.units[unit].blocks
        ends = np.cumsum([0, *(DIRECTORY_BYTES + 12 * entries for entries in blocks)]).tolist()
        if path.stat().st_size != ends[-1]:
            raise DataError(f"{path}: has not the size of {sum(blocks)} keys; make it again")
        parts = [
            _keys_of_block(path, at, entries, low, high)
            for at, entries in zip(ends[:-1], blocks, strict=True)
        ]
        keys = np.concatenate([np.zeros(0, np.uint64), *(part[0] for part in parts)])
        items = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)])
        if len(parts) > 1:
            sort_entries(keys, items)
        return keys, items

    def signatures(self, numbers: I64) -> U8:
        """Those of items [n], by their sorted numbers: [n, width]."""
        cuts = np.searchsorted(numbers, self.bases)
        parts = [
            self._signatures_of(unit)[numbers[cuts[unit] : cuts[unit + 1]] - self.bases[unit]]
            for unit in range(len(self.units))
            if cuts[unit] < cuts[unit + 1]
        ]
        return np.ascontiguousarray(np.concatenate(parts)) if parts else np.zeros((0, 1), np.uint8)

    def _signatures_of(self, unit: int) -> U8:
        path = self.folder / _name(unit, "signatures")
        return np.memmap(path, np.uint8, "r").reshape(self.units[unit].items, -1)

    def unit_of(self, numbers: I64) -> I64:
        """The units of items."""
        return np.searchsorted(self.bases, numbers, side="right") - 1

    def rows(self, unit: int) -> Iterator[Row]:
        """What is kept of the documents of a unit, in order."""
        return (Row(**orjson.loads(line)) for line in self._lines(unit))

    def rows_of(self, unit: int, wanted: Collection[int]) -> Iterator[Row]:
        """The same of some documents, by their numbers in the unit."""
        lines = enumerate(self._lines(unit))
        return (Row(**orjson.loads(line)) for i, line in lines if i in wanted)

    def _lines(self, unit: int) -> Iterator[bytes]:
        return read_shard(self.folder / _name(unit, "jsonl.zst"))


def _keys_of_block(path: Path, at: int, entries: int, low: int, high: int) -> tuple[U64, I64]:
    """Those of the block that begins at byte `at`."""
    starts = np.fromfile(path, np.uint64, DIRECTORY_BYTES // 8, offset=at)
    at += DIRECTORY_BYTES
    shift = 64 - DIRECTORY_BITS
    first, last = int(starts[low >> shift]), int(starts[((high - 1) >> shift) + 1])
    keys = np.fromfile(path, np.uint64, last - first, offset=at + 8 * first)
    items = np.fromfile(path, np.uint32, last - first, offset=at + 8 * entries + 4 * first)
    begin = int(np.searchsorted(keys, np.uint64(low)))
    end = len(keys) if high == 2**64 else int(np.searchsorted(keys, np.uint64(high)))
    return keys[begin:end], items[begin:end].astype(np.int64)


def _directory(keys: U64) -> U64:
    buckets = np.arange(1 << DIRECTORY_BITS, dtype=np.uint64) << np.uint64(64 - DIRECTORY_BITS)
    return np.append(np.searchsorted(keys, buckets), len(keys)).astype(np.uint64)


def _row_line(row: Row) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _name(number: int, end: str) -> str:
    return f"{number:06d}.{end}"
