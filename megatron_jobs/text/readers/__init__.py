"""What can be read into records: one module a format, chosen by the end of a file's name.

A reader is a function (piece, rules) -> iterator of Record, Quarantined or Skipped, in the file's
order. It never holds more than one record in memory, raises nothing for what is wrong with the
content (that is quarantined, what was read before a damage is kept, and reading goes on behind it
where the format has a way to), and OSError when reading fails.

Formats of pages (PAGES) give records with a `payload`, of which `extract` makes texts.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import PARTIAL, read_json
from megatron_jobs.text.members import PACKED
from megatron_jobs.text.names import given, name_files
from megatron_jobs.text.readers.remote import open_remote, remote_files
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Quarantined, Skipped

READERS = {
    ".jsonl": "lines",
    ".json": "lines",
    ".ndjson": "lines",
    ".txt": "whole",
    ".warc": "warc",
    ".wet": "warc",
    ".html": "whole",
    ".htm": "whole",
    ".xhtml": "whole",
    ".eml": "mail",
    ".parquet": "tables",
    ".arrow": "tables",
    ".mds": "mds",
}
"""End of a name, without .gz, .zst or .zstd -> module here."""
PAGES = (".warc", ".html", ".htm", ".xhtml")
"""What they hold is no text before `extract` has made it one."""
TOKENS = {".bin": "tokens"}
"""Read only where a stage asks for tokens."""
CUT = (".jsonl", ".ndjson", ".parquet", ".bin")
"""May be cut anywhere when they are not packed: their lines, groups of rows, or documents
belong to where they start."""
CUT_AT_MEMBERS = (".warc", ".wet")
"""May be cut when they are packed as .gz: crawls pack each record on its own."""
FACTS = {
    "index.json": ("*.mds", "*.mds.*"),
    "state.json": ("*.arrow",),
    "dataset_info.json": ("*.arrow",),
    "dataset_dict.json": ("*/state.json",),
}
"""Files that hold no documents when others lie beside them."""


@dataclass(frozen=True)
class Piece:
    """A file, or what starts in [start, end) of one: lines, records."""

    path: Path
    start: int
    end: int
    """Bytes."""
    name: str
    """What its records and places are named by; see `text.names`. Its address when elsewhere."""
    url: str = ""
    """Of a file that is elsewhere; `path` is then its name only."""
    stamp: str = ""
    """Tells it from other versions of the file."""
    kind: str = ""
    """The key of READERS by which it is read; "" goes by the end of its name."""

    @property
    def format(self) -> str:
        """The key of READERS by which it is read."""
        return self.kind or kind_of(self.path)

    @property
    def size(self) -> int:
        """Bytes as they are stored, to the nearest line."""
        return self.end - self.start

    def open(self) -> IO[bytes]:
        """The bytes of the whole file, as they are stored."""
        return open_remote(self.url) if self.url else self.path.open("rb")


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
    pages: bool = False
    """Whether records may have a payload; else text that is not UTF-8 is quarantined."""


Item = Record | Quarantined | Skipped
Reader = Callable[[Piece, ReadRules], Iterator[Item]]


def kind_of(path: Path) -> str:
    """The key of READERS for a file; "" when nobody reads such."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return next((end for end in READERS if name.endswith(end)), "")


def input_files(inputs: Iterable[Path], urls: Iterable[str] = (), kind: str = "") -> list[Piece]:
    """The files that `inputs` name, whole, in order; of a folder all readable ones below it, by
    name. Then those elsewhere, which `urls` name: addresses, or patterns of such.

    Args:
        kind: a key of READERS by which all of them are read, whatever they are called.
    Raises: UserError for one that nobody reads, or a folder without any.
    """
    paths = list(inputs)
    found = [_files_of(path, kind) for path in paths]
    names = name_files([given(path, files) for path, files in zip(paths, found, strict=True)])
    pieces = [
        _whole(file, name, kind)
        for files, some in zip(found, names, strict=True)
        for file, name in zip(files, some, strict=True)
    ]
    for file in remote_files(urls, lambda path: kind or kind_of(path)):
        whole = Piece(Path(file.name), 0, file.size, file.url, file.url, file.stamp, kind)
        pieces.append(whole)
    return pieces


def _files_of(path: Path, kind: str) -> list[Path]:
    """The file that an input is, or those in the folder."""
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if p.is_file() and _is_data(p, kind))
        if not below:
            raise UserError(f"{path}: no file in it ends in {', '.join(READERS)}")
        return below
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if not (kind or kind_of(path)):
        raise UserError(f"{path}: can read files that end in {', '.join(READERS)}")
    return [path]


def _is_data(path: Path, kind: str) -> bool:
    """Whether a file in a folder holds documents: not what only tells of those beside it."""
    if PARTIAL in path.name or not (kind or kind_of(path)):
        return False
    if any(any(path.parent.glob(pattern)) for pattern in FACTS.get(path.name, ())):
        return False
    state = path.with_name("state.json")
    if path.suffix != ".arrow" or not state.is_file():
        return True
    named = read_json(state).get("_data_files", [])  # others are caches of `datasets`
    return not named or any(one.get("filename") == path.name for one in named)


def _whole(path: Path, name: str, kind: str) -> Piece:
    stat = path.stat()
    return Piece(path, 0, stat.st_size, name, stamp=str(stat.st_mtime_ns), kind=kind)


def cut_units(files: Iterable[Piece], unit_bytes: int) -> list[Unit]:
    """Units of some `unit_bytes`: large files are cut where they can be, small ones put together.

    Empty files are left out.
    """
    units: list[Unit] = []
    open_pieces: list[Piece] = []
    filled = 0
    for piece in (piece for file in files for piece in _cut(file, unit_bytes)):
        if open_pieces and filled + piece.size > unit_bytes:
            units.append(Unit(tuple(open_pieces)))
            open_pieces, filled = [], 0
        open_pieces.append(piece)
        filled += piece.size
    return [*units, Unit(tuple(open_pieces))] if open_pieces else units


def _cut(file: Piece, most: int) -> Iterator[Piece]:
    name = file.path.name.lower()
    if name.endswith(PACKED):
        cut = file.format in CUT_AT_MEMBERS and name.endswith(".gz")
    else:
        cut = file.format in CUT
    step = most if cut else max(file.size, 1)
    for start in range(0, file.size, step):
        yield replace(file, start=start, end=min(start + step, file.end))


def read_unit(unit: Unit, rules: ReadRules) -> Iterator[Item]:
    """All of a unit, in order; see the module."""
    for piece in unit.pieces:
        module = importlib.import_module(f"{__name__}.{(READERS | TOKENS)[piece.format]}")
        read: Reader = module.read
        for item in read(piece, rules):
            if isinstance(item, Record):
                item.source = item.source or rules.source
                item.licence = item.licence or rules.licence
            yield item
