"""The texts that a model of text learns from, and what is known of where they came from."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_jobs.text.readers import ReadRules, cut_units, input_files, read_unit
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Quarantined

UNIT_BYTES = 16_000_000


@dataclass
class Origins:
    """Of some inputs."""

    inputs: list[str]
    """Names, without the folders they lie in."""
    documents: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    """What was no record, by reason."""
    bytes: int = 0
    """UTF-8 bytes of the texts."""
    sources: dict[str, int] = field(default_factory=dict)
    """Documents by source; "" when nobody said."""
    licences: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Count a document."""
        self.documents += 1
        self.bytes += len(record.text.encode("utf-8", "replace"))
        for counts, name in (
            (self.sources, record.source),
            (self.licences, record.licence),
            (self.languages, record.language),
        ):
            counts[name] = counts.get(name, 0) + 1

    def facts(self) -> dict[str, Any]:
        """For a facts.json."""
        return vars(self)


class TrainingTexts:
    """The records of some inputs, counted as they are read.

    Args:
        report: is told the bytes on disk that each unit took.
    """

    def __init__(
        self, inputs: Iterable[Path], rules: ReadRules, report: Callable[[int], None]
    ) -> None:
        paths = list(inputs)
        self.rules, self.report = rules, report
        self.units = cut_units(input_files(paths), UNIT_BYTES)
        self.size = sum(unit.size for unit in self.units)
        """Bytes on disk."""
        self.origins = Origins([path.name for path in paths])

    def __iter__(self) -> Iterator[Record]:
        none: Counter[str] = Counter()
        for unit in self.units:
            for item in read_unit(unit, self.rules):
                if isinstance(item, Record):
                    self.origins.add(item)
                    yield item
                elif isinstance(item, Quarantined):
                    none[item.reason] += 1
            self.report(unit.size)
        self.origins.quarantined = dict(sorted(none.items()))
