"""Fingerprints of documents, or of their paragraphs or sentences: the first step to find copies.

The chain: `fingerprint` (array over the input), `match` (array over ranges of the keys), `cluster`
(ranks that share all documents), `deduplicate` (array over the input again).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Problem
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import read_json, remove, write_json
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import DocumentSettings, link, list_units, read_rules
from megatron_jobs.stages.pieces import begin, run_pieces
from megatron_jobs.text.copies.methods import FingerprintSettings

if TYPE_CHECKING:
    from megatron_jobs.text.copies.methods import Prints, Take
    from megatron_jobs.text.copies.quick_lines import Brief
    from megatron_jobs.text.copies.store import Row
    from megatron_jobs.text.readers import Item, Unit
    from megatron_jobs.text.record import Record

OUTPUTS = ("fingerprints",)
RESOURCES = Resources(ranks=2)
BATCH = 1 << 20
"""Letters of the texts that C++ is given at once."""
BATCH_TEXTS = 1 << 14
"""Texts, where they are short."""


class Config(DocumentSettings, FingerprintSettings):
    """What is read, and what is taken of it."""

    score: str = ""
    """Name in the metadata of a number by which `cluster` may choose what it keeps."""
    planted: str = ""
    """Name in the metadata of the id that a document is a copy of, where copies were planted to
    see how many are found; `cluster` reports it."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        yield from DocumentSettings.problems(self)
        yield from FingerprintSettings.problems(self)


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write folder/fingerprints of this task's units."""
    from megatron_jobs.text.copies.store import unit_is_done

    units = list_units(config)
    begin(rank, folder, _made_of(config, units), OUTPUTS)
    out = folder / "fingerprints"
    of_task = run_pieces(
        rank,
        folder,
        [unit.size for unit in units],
        unit="bytes",
        is_done=lambda number: unit_is_done(out, number),
        do=_Work(config, units, out).do,
    )
    if not rank.leads:
        return {}
    facts = [read_json(out / f"{number:06d}.json") for number in of_task]
    return _settle(config, out, facts, whole=rank.tasks == 1)


def gather(config: Config, folder: Path, tasks: Sequence[Path]) -> dict[str, float]:
    """Link the units of all tasks into folder/fingerprints."""
    from megatron_jobs.text.copies.store import ABOUT, unit_files

    out = folder / "fingerprints"
    remove(out)
    out.mkdir(parents=True)
    count = sum(len(read_json(task / "fingerprints" / ABOUT)["units"]) for task in tasks)
    for number in range(count):
        for name in unit_files(number):
            link(tasks[number % len(tasks)] / "fingerprints" / name, out / name)
    facts = [read_json(out / f"{number:06d}.json") for number in range(count)]
    return _settle(config, out, facts, whole=True)


class _Work:
    """Takes the fingerprints of units."""

    def __init__(self, config: Config, units: "list[Unit]", out: Path) -> None:
        self.config, self.units, self.out = config, units, out
        self.take: Take | None = None

    def do(self, number: int) -> None:
        from megatron_jobs.text.copies.methods import make_prints
        from megatron_jobs.text.copies.store import write_unit

        self.take = self.take or make_prints(self.config)
        unit, quarantined = self.units[number], dict[str, int]()
        batches = self._batches(unit, self.take, quarantined)
        write_unit(self.out, number, unit, batches=batches, quarantined=quarantined)

    def _batches(
        self, unit: "Unit", take: "Take", quarantined: dict[str, int]
    ) -> "Iterator[tuple[list[Row], Prints]]":
        """The documents of a unit, some at a time; what is none is counted."""
        from megatron_jobs.text.shards import Quarantined, Skipped

        records: list[Record | Brief] = []
        letters = 0
        for item in self._items(unit):
            if isinstance(item, Quarantined):
                quarantined[item.reason] = quarantined.get(item.reason, 0) + 1
            if isinstance(item, (Quarantined, Skipped)):
                continue
            records.append(item)
            letters += len(item.text)
            if letters > BATCH or len(records) == BATCH_TEXTS:
                yield self._batch(records, take)
                records, letters = [], 0
        yield self._batch(records, take)

    def _items(self, unit: "Unit") -> "Iterator[Item | Brief]":
        """All of a unit, in order."""
        from megatron_jobs.text.copies.quick_lines import read_briefly, reads_quickly
        from megatron_jobs.text.readers import Unit, read_unit

        rules = read_rules(self.config)
        for piece in unit.pieces:
            if reads_quickly(piece) and not (self.config.score or self.config.planted):
                yield from read_briefly(piece, rules)
            else:
                yield from read_unit(Unit((piece,)), rules)

    def _batch(self, records: "list[Record | Brief]", take: "Take") -> "tuple[list[Row], Prints]":
        from megatron_jobs._copies import utf8_sizes

        texts: list[str | bytes] = [record.text for record in records]
        sizes = utf8_sizes(texts).tolist()
        return [*map(self._row, records, sizes)], take(texts)

    def _row(self, record: "Record | Brief", size: int) -> "Row":
        from megatron_jobs.text.copies.store import Row

        score = record.metadata.get(self.config.score) if self.config.score else None
        planted = record.metadata.get(self.config.planted) if self.config.planted else None
        return Row(
            record.id,
            size,
            record.source or self.config.source,
            record.date,
            float(score) if isinstance(score, (int, float)) else None,
            "" if planted is None else str(planted),
        )


def _made_of(config: Config, units: "list[Unit]") -> dict[str, Any]:
    from megatron_jobs.text.copies.store import pieces_of

    pieces = json.dumps([pieces_of(unit) for unit in units]).encode()
    settings = config.model_dump(mode="json", exclude={"max_quarantined_share"})
    return {"settings": settings, "units": hashlib.sha256(pieces).hexdigest()}


def _settle(
    config: Config, out: Path, units: list[dict[str, Any]], *, whole: bool
) -> dict[str, float]:
    """Write what the units have in common; UserError when too much of the whole was no record."""
    from megatron_jobs.text.copies.store import ABOUT

    names = set(FingerprintSettings.model_fields)
    about = {
        "settings": config.model_dump(mode="json", include=names),
        "rules": asdict(read_rules(config)),
        "planted": bool(config.planted) and not config.of_spans,
        "units": units,
    }
    write_json(out / ABOUT, about)
    quarantined = sum(sum(unit["quarantined"].values()) for unit in units)
    documents = sum(unit["documents"] for unit in units)
    share = quarantined / max(documents + quarantined, 1)
    if whole and share > config.max_quarantined_share:
        rule = f"at most {config.max_quarantined_share:.1%} may be (max_quarantined_share)"
        found = f"{quarantined} of {documents + quarantined} are no records"
        raise UserError(f"input: {found}, {rule}")
    return {
        "records_in": documents + quarantined,
        "documents": documents,
        "quarantined": quarantined,
        "items": sum(unit["items"] for unit in units),
        "keys": sum(sum(unit["blocks"]) for unit in units),
        "text_bytes": sum(unit["text_bytes"] for unit in units),
    }
