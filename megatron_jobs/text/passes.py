"""A pass over records: each is kept, perhaps changed, or rejected with a verdict; none is lost.

The input is cut into numbered units, equal for any number of tasks and ranks. A unit's shards are
written whole, its counts last: a pass that was killed goes on with the units that are missing, and
its output does not depend on who made which unit.
"""

import base64
import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, cast, runtime_checkable

import orjson

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import read_json, write_json
from megatron_jobs.text.forms import Form, Sink, as_shards
from megatron_jobs.text.readers import ReadRules, Unit, read_unit
from megatron_jobs.text.record import Record, to_line
from megatron_jobs.text.shards import (
    COUNTS,
    DOCUMENTS,
    QUARANTINED,
    REJECTED,
    Quarantined,
    Skipped,
    Verdict,
    shard_name,
    write_shard,
)

MOST_FOLDERS = 500
"""That the documents of a unit are divided into: each has a file open."""
NO_NAME = re.compile(r"[^\w.+-]|^\.+")
"""What stands for nothing good in the name of a folder."""


class Treatment(Protocol):
    """What a pass does; made once a process, so it may hold models."""

    def treat(self, record: Record) -> Record | Verdict:
        """The record that goes on (it may be the same object, changed), or why none does.

        A record that is rejected is written as it is when this returns.
        """
        ...

    def numbers(self) -> dict[str, int]:
        """Counts of its own since the last call, by dotted name, such as `redacted.email`."""
        ...


class NotingTreatment(Treatment, Protocol):
    """A treatment that also leaves lines of its own, such as samples to review."""

    def notes(self) -> Iterable[dict[str, Any]]:
        """What it has to tell of the record that it was given last."""
        ...


@runtime_checkable
class PreparedTreatment(Protocol):
    """A treatment that must have seen all records of a unit before it treats the first."""

    def prepare(self, records: Iterable[Record]) -> None:
        """Read the records of the next unit; `treat` is then given the same, in order."""
        ...


@runtime_checkable
class NumberedTreatment(Protocol):
    """A treatment that has to know which records it is given, by unit and order."""

    def begin(self, unit: int) -> None:
        """The records of this unit come next, from its first."""
        ...


@runtime_checkable
class FinishingTreatment(Protocol):
    """A treatment that leaves something of its own beside a unit's shards."""

    def finish(self, number: int) -> None:
        """Write it, whole; the unit, of this number, counts as done only afterwards."""
        ...


@dataclass
class Counts:
    """What became of the records of a unit, or of all."""

    read: int = 0
    """Records and what is none."""
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    """By rule."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """By reason."""
    skipped: dict[str, int] = field(default_factory=dict)
    """What holds no document and is not among those read, by kind."""
    bytes_read: int = 0
    """Bytes of all pages, and of the texts of records that had one, as they were read."""
    bytes_kept: int = 0
    languages: dict[str, int] = field(default_factory=dict)
    """Records kept, by language."""
    sources: dict[str, int] = field(default_factory=dict)
    """Records kept, by source."""
    licences: dict[str, int] = field(default_factory=dict)
    """Records kept, by licence."""
    source_bytes: dict[str, int] = field(default_factory=dict)
    """Text kept, by source."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Records kept, by the binary order of their bytes: "10" counts 512..1023."""
    further: dict[str, int] = field(default_factory=dict)
    """What the treatment counted."""
    duplicate_ids: dict[str, int] = field(default_factory=dict)
    """Some ids that several records kept have, and how many; where they were looked for."""

    def add(self, other: "Counts") -> None:
        """Add up."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, dict):
                total = Counter(mine)
                total.update(value)
                setattr(self, name, dict(sorted(total.items())))
            else:
                setattr(self, name, mine + value)

    def check(self, where: str) -> None:
        """Nothing is lost: what was read was kept, rejected or quarantined."""
        rejected, quarantined = sum(self.rejected.values()), sum(self.quarantined.values())
        assert self.read == self.kept + rejected + quarantined, (
            f"{where}: {self.read} read, {self.kept} kept, {rejected} rejected, "
            f"{quarantined} quarantined"
        )

    def as_numbers(self) -> dict[str, float]:
        """For a receipt: records_in = documents + rejected + quarantined."""
        self.check("receipt")
        return {
            "records_in": self.read,
            "documents": self.kept,
            "rejected": sum(self.rejected.values()),
            "quarantined": sum(self.quarantined.values()),
            "skipped": sum(self.skipped.values()),
            "text_bytes": self.bytes_kept,
            **{name: float(count) for name, count in sorted(self.further.items())},
        }


@dataclass(frozen=True)
class Outlets:
    """What a pass writes beside its three kinds of shards, and where its documents go."""

    notes: str = ""
    """Folder for the lines of a `NotingTreatment`; "" for another treatment."""
    divide_by: str = ""
    """A field of the records: each value has a folder of its own in `documents`; "" for none."""

    form: Form = as_shards
    """What its documents are written in."""

    def folder_of(self, record: Record) -> str:
        """Where a record goes, below the pass's folder."""
        if not self.divide_by:
            return DOCUMENTS
        return f"{DOCUMENTS}/{NO_NAME.sub('_', getattr(record, self.divide_by)) or 'none'}"


def run_unit(
    folder: Path,
    number: int,
    unit: Unit,
    *,
    rules: ReadRules,
    treatment: Treatment,
    outlets: Outlets,
) -> Counts:
    """Do one unit, unless it is done: its shards below `folder`, then its counts."""
    done = folder / COUNTS / f"{number:06d}.json"
    if done.exists():
        return Counts(**read_json(done))
    counts = Counts()
    treatment.numbers()  # what an earlier unit that failed has counted
    if isinstance(treatment, NumberedTreatment):
        treatment.begin(number)
    if isinstance(treatment, PreparedTreatment):
        treatment.prepare(item for item in read_unit(unit, rules) if isinstance(item, Record))
    with _Outputs(folder, number, outlets) as out:
        for item in read_unit(unit, rules):
            if isinstance(item, Skipped):
                counts.skipped[item.kind] = counts.skipped.get(item.kind, 0) + 1
                continue
            counts.read += 1
            if isinstance(item, Quarantined):
                out.quarantine(item, counts)
                continue
            counts.bytes_read += len(item.payload) or _size(item)
            result = treatment.treat(item)
            out.note(treatment)
            if isinstance(result, Verdict):
                out.reject(item, result, counts)
            else:
                out.keep(result, counts)
    counts.further = _finished(treatment, number)
    counts.check(f"unit {number}")
    write_json(done, asdict(counts))
    return counts


def _finished(treatment: Treatment, number: int) -> dict[str, int]:
    if isinstance(treatment, FinishingTreatment):
        treatment.finish(number)
    return treatment.numbers()


class _Outputs:
    """The shards of a unit."""

    def __init__(self, folder: Path, number: int, outlets: Outlets) -> None:
        self.folder, self.number, self.outlets = folder, number, outlets
        self.stack = contextlib.ExitStack()
        self.documents: dict[str, Sink] = {}

    def __enter__(self) -> "_Outputs":
        self.rejected, self.quarantined = self._open(REJECTED), self._open(QUARANTINED)
        self.notes = self._open(self.outlets.notes) if self.outlets.notes else None
        if not self.outlets.divide_by:
            self.documents[DOCUMENTS] = self._begin(DOCUMENTS)
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    def _open(self, kind: str) -> IO[bytes]:
        path = self.folder / kind / shard_name(self.number)
        return self.stack.enter_context(write_shard(path))

    def _begin(self, place: str) -> Sink:
        stem = self.folder / place / f"{self.number:06d}"
        return self.stack.enter_context(self.outlets.form(stem))

    def note(self, treatment: Treatment) -> None:
        if self.notes is not None:
            for line in cast(NotingTreatment, treatment).notes():
                self.notes.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def keep(self, record: Record, counts: Counts) -> None:
        size = _size(record)
        place = self.outlets.folder_of(record)
        if place not in self.documents:
            self._check_room()
            self.documents[place] = self._begin(place)
        self.documents[place].write(record)
        counts.kept += 1
        counts.bytes_kept += size
        for by, name, count in (
            (counts.languages, record.language, 1),
            (counts.sources, record.source, 1),
            (counts.licences, record.licence, 1),
            (counts.source_bytes, record.source, size),
            (counts.lengths, str(size.bit_length()), 1),
        ):
            by[name] = by.get(name, 0) + count

    def _check_room(self) -> None:
        if len(self.documents) < MOST_FOLDERS:
            return
        by, some = self.outlets.divide_by, ", ".join(list(self.documents)[-3:])
        found = f"more than {MOST_FOLDERS} values of {by} in one unit (such as {some})"
        raise UserError(f"divide_by: found {found}; divide by what has fewer")

    def reject(self, record: Record, verdict: Verdict, counts: Counts) -> None:
        record.payload = b""
        self.rejected.write(to_line(record, verdict=verdict.as_object()))
        counts.rejected[verdict.rule] = counts.rejected.get(verdict.rule, 0) + 1

    def quarantine(self, item: Quarantined, counts: Counts) -> None:
        head = base64.b64encode(item.head).decode()
        fact = {"place": item.place, "reason": item.reason, "bytes": item.size, "head": head}
        self.quarantined.write(orjson.dumps(fact, option=orjson.OPT_APPEND_NEWLINE))
        counts.quarantined[item.reason] = counts.quarantined.get(item.reason, 0) + 1


def run_units(
    folder: Path,
    units: Sequence[Unit],
    mine: Sequence[int],
    *,
    rules: ReadRules,
    make: Callable[[], Treatment],
    report: Callable[[int], None],
    outlets: Outlets,
) -> None:
    """Do the units whose numbers are `mine`; `report` is told the bytes of input done."""
    treatment, done = make(), 0
    for number in mine:
        run_unit(folder, number, units[number], rules=rules, treatment=treatment, outlets=outlets)
        done += units[number].size
        report(done)


def counts_below(folder: Path, numbers: Sequence[int]) -> Counts:
    """The counts of units that are done, added up."""
    total = Counts()
    for number in numbers:
        total.add(Counts(**read_json(folder / COUNTS / f"{number:06d}.json")))
    return total


def units_done(folder: Path, numbers: Sequence[int]) -> Iterator[int]:
    """Those of `numbers` whose counts are written."""
    return (number for number in numbers if (folder / COUNTS / f"{number:06d}.json").exists())


def _size(record: Record) -> int:
    text = record.text
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
