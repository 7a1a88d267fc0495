"""What can be read into records: one module a format, chosen by the end of a file's name.

A reader is a function (piece, rules) -> iterator of Record or Quarantined, in the file's order.
It never holds more than one record in memory, raises nothing for what is wrong with the content
(that is quarantined, and what was read before a damage is kept), and OSError when reading fails.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Quarantined

READERS = {
    ".jsonl": "lines",
    ".json": "lines",
    ".ndjson": "lines",
}
"""End of a name, without .gz or .zst -> module here."""
PACKED = (".gz", ".zst")
CUT = (".jsonl", ".ndjson")
"""May be cut anywhere when they are not packed: their lines belong to where they start."""


@dataclass(frozen=True)
class Piece:
    """A file, or the lines of one that start in [start, end)."""

    path: Path
    start: int
    end: int
    """Bytes."""

    @property
    def size(self) -> int:
        """Bytes on disk, to the nearest line."""
        return self.end - self.start


@dataclass(frozen=True)
class Unit:
    """Pieces that are done as one, in this order: small files stand together."""

    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(piece.size for piece in self.pieces)


@dataclass(frozen=True)
class ReadRules:
    """What a reader has to know beside the file."""

    key: str = "text"
    """Of the text, in formats that have keys or columns."""
    limit: int = 50_000_000
    """Bytes; a longer record is quarantined, never held in memory."""
    source: str = ""
    """Given to records without one."""
    licence: str = ""
    """Given to records without one."""


Item = Record | Quarantined
Reader = Callable[[Piece, ReadRules], Iterator[Item]]


def kind_of(path: Path) -> str:
    """The key of READERS for a file; "" when nobody reads such."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return next((end for end in READERS if name.endswith(end)), "")


def input_files(inputs: Iterable[Path]) -> list[Path]:
    """The files that `inputs` name, in order; of a folder all readable ones below it, by name.

    Raises: UserError for one that nobody reads, or a folder without any.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            below = sorted(p for p in path.rglob("*") if p.is_file() and kind_of(p))
            if not below:
                raise UserError(f"{path}: no file in it ends in {', '.join(READERS)}")
            found += below
        elif not path.is_file():
            raise UserError(f"{path}: no such file or folder")
        elif not kind_of(path):
            raise UserError(f"{path}: can read files that end in {', '.join(READERS)}")
        else:
            found.append(path)
    return found


def cut_units(files: Iterable[Path], unit_bytes: int) -> list[Unit]:
    """Units of some `unit_bytes`: large files are cut where they can be, small ones put together.

    Empty files are left out.
    """
    units: list[Unit] = []
    open_pieces: list[Piece] = []
    filled = 0
    for piece in _pieces(files, unit_bytes):
        if open_pieces and filled + piece.size > unit_bytes:
            units.append(Unit(tuple(open_pieces)))
            open_pieces, filled = [], 0
        open_pieces.append(piece)
        filled += piece.size
    return [*units, Unit(tuple(open_pieces))] if open_pieces else units


def _pieces(files: Iterable[Path], most: int) -> Iterator[Piece]:
    for path in files:
        size = path.stat().st_size
        step = most if path.name.lower().endswith(CUT) else max(size, 1)
        for start in range(0, size, step):
            yield Piece(path, start, min(start + step, size))


def read_unit(unit: Unit, rules: ReadRules) -> Iterator[Item]:
    """All of a unit, in order; see the module."""
    for piece in unit.pieces:
        module = importlib.import_module(f"{__name__}.{READERS[kind_of(piece.path)]}")
        read: Reader = module.read
        for item in read(piece, rules):
            if isinstance(item, Record):
                item.source = item.source or rules.source
                item.licence = item.licence or rules.licence
            yield item
