"""What is removed of each unit of the input, as files between `cluster` and `deduplicate`.

removals/about.json    the method and the units
removals/N.jsonl.zst   of unit N, a line an item that is removed: {"row": its number in the
                       unit, "cluster": number of the cluster's first item, "size": of the
                       cluster, "kept": id of the document that stays}
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import read_json, write_json
from megatron_jobs.text.copies.methods import FingerprintSettings
from megatron_jobs.text.copies.store import ABOUT, Fingerprints, pieces_of
from megatron_jobs.text.readers import ReadRules, Unit
from megatron_jobs.text.shards import read_shard, shard_name, write_shard

COUNTING = ("key", "limit", "pages")
"""Rules of reading that decide what is a record."""
SETTINGS = {"limit": "max_record_mb (here in bytes)"}


@dataclass(frozen=True)
class Removal:
    """An item that goes."""

    row: int
    """Its number in its unit."""
    cluster: int = -1
    """The number of the cluster's first item among all; -1 when nobody knows."""
    size: int = 0
    """Items in the cluster; 0 when nobody knows."""
    kept: str = ""
    """The id of the document that stays; "" for spans, or when nobody knows."""


def write_removals(folder: Path, unit: int, removals: Iterator[Removal]) -> int:
    """Write those of a unit, by row; returns how many."""
    count = 0
    with write_shard(folder / shard_name(unit)) as stream:
        for removal in removals:
            known = {name: value for name, value in vars(removal).items() if value not in ("", -1)}
            stream.write(orjson.dumps(known, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def write_about(folder: Path, prints: Fingerprints, *, rule: str) -> None:
    """Say what the removals belong to; `rule` is what verdicts call them: duplicate.RULE."""
    about = {name: prints.about[name] for name in ("settings", "rules", "units")}
    write_json(folder / ABOUT, {"rule": f"duplicate.{rule}", **about})


class Removals:
    """The removals of all units in a folder.

    Args:
        units, rules: what is read now, and how.
    Raises: DataError when it is none, or the input was cut or read otherwise.
    """

    def __init__(self, folder: Path, units: list[Unit], rules: ReadRules) -> None:
        about = folder / ABOUT
        if not about.exists():
            raise DataError(f"{folder}: has no {ABOUT}; give the removals of a cluster job")
        found: dict[str, Any] = read_json(about)
        self.folder = folder
        self.rule: str = found["rule"]
        self.settings = FingerprintSettings(**found["settings"])
        theirs = [_cut(unit["pieces"]) for unit in found["units"]]
        ours = [_cut(pieces_of(unit)) for unit in units]
        if theirs != ours:
            what = f"input: found {len(ours)} units, other than the {len(theirs)} of {folder}"
            raise DataError(f"{what}; give the input and the unit_mb of the fingerprint job")
        self._check_rules(found["rules"], asdict(rules))
        self.documents = [unit["documents"] for unit in found["units"]]

    def _check_rules(self, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
        """Removals go by the numbers of records: the same must be records for both."""
        for name in COUNTING:
            if theirs[name] != ours[name]:
                what = f"found {ours[name]!r}, the fingerprint job had {theirs[name]!r}"
                raise DataError(f"{SETTINGS.get(name, name)}: {what}; give the same")

    def check_count(self, unit: int, documents: int) -> None:
        """DataError when a unit had another number of documents than when it was looked at."""
        if documents != self.documents[unit]:
            found = f"{documents} documents in unit {unit}"
            rule = f"fingerprints were taken of {self.documents[unit]}"
            raise DataError(f"input: found {found}, {rule}; has it been changed?")

    def of(self, unit: int) -> "RemovalsOfUnit":
        """Those of a unit."""
        lines = read_shard(self.folder / shard_name(unit))
        return RemovalsOfUnit(Removal(**orjson.loads(line)) for line in lines)


class RemovalsOfUnit:
    """The removals of a unit, asked for row by row: one is held in memory."""

    def __init__(self, removals: Iterator[Removal]) -> None:
        self.rest = removals
        self.following = next(removals, None)

    def take(self, row: int) -> Removal | None:
        """That of a row, if it goes; each row is asked for once, in order."""
        found = self.following
        if found is None or found.row != row:
            return None
        self.following = next(self.rest, None)
        return found


def _cut(pieces: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(piece[name] for name in ("name", "start", "end", "kind")) for piece in pieces]
