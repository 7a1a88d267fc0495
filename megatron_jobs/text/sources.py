"""Text files, and how they are cut into pieces that can be read apart."""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.text.members import PACKED
from megatron_jobs.text.names import given, name_files

LINES = (".jsonl", ".json")
"""One JSON object a line."""
WHOLE = (".txt",)
"""One document a file."""
READABLE = [kind + packed for kind in (*LINES, *WHOLE) for packed in ("", *PACKED)]
PART_BYTES = 1 << 26
"""Of a part, at most."""
SMALL_PART_BYTES = 1 << 24
"""While there are fewer than MANY_PARTS: ranks that take part after part end closer together."""
LEAST_PARTS, MANY_PARTS = 8, 64


@dataclass(frozen=True)
class TextFile:
    """A file of documents."""

    path: Path
    size: int
    """Bytes on disk."""
    name: str
    """How it is called in the names of its documents; see `text.names`."""

    @property
    def packed(self) -> bool:
        """Whether it is gzip or zstd."""
        return self.path.name.endswith(PACKED)

    @property
    def whole(self) -> bool:
        """Whether it is one document."""
        name = self.path.stem if self.packed else self.path.name
        return name.endswith(WHOLE)


@dataclass(frozen=True)
class Piece:
    """The lines of a file whose first byte lies in [start, end)."""

    file: TextFile
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes on disk, to the nearest line."""
        return self.end - self.start


def text_files(inputs: Iterable[Path]) -> list[TextFile]:
    """The files that `inputs` name, in order; of a folder all readable ones below it, by name.

    Raises: UserError for a name that cannot be read, a folder without files, or no text at all.
    """
    paths = list(inputs)
    below = [_files_of(path) for path in paths]
    names = name_files([given(path, files) for path, files in zip(paths, below, strict=True)])
    found = [
        TextFile(file, file.stat().st_size, name)
        for files, some in zip(below, names, strict=True)
        for file, name in zip(files, some, strict=True)
    ]
    if not any(file.size for file in found):
        first = ", ".join(str(file.path) for file in found[:3]) or "nothing"
        raise UserError(f"input: found {first}, without a single byte; give it some text")
    return found


def _files_of(path: Path) -> list[Path]:
    """The file that an input is, or those in the folder."""
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if p.is_file() and _readable(p))
        if not below:
            raise UserError(f"{path}: no file in it ends in {', '.join(READABLE)}")
        return below
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder")
    if not _readable(path):
        raise UserError(f"{path}: can read files that end in {', '.join(READABLE)}")
    return [path]


def default_parts(files: Sequence[TextFile]) -> int:
    """Parts of some 16 to 64 MiB: enough to share out, small enough to do again."""
    size = sum(file.size for file in files)
    return max(LEAST_PARTS, min(size // SMALL_PART_BYTES, MANY_PARTS), -(-size // PART_BYTES))


def cut(files: Sequence[TextFile], parts: int) -> list[list[Piece]]:
    """The pieces of each of `parts` parts of about the same number of bytes.

    Lines are cut anywhere and belong to where they start. What cannot be read from the middle
    (gzip, zstd, a whole document) belongs, whole, to where the file starts.
    """
    total = sum(file.size for file in files)
    bounds = [total * part // parts for part in range(parts + 1)]
    starts = [0, *accumulate(file.size for file in files)]
    result: list[list[Piece]] = [[] for _ in range(parts)]
    for file, first in zip(files, starts, strict=False):
        if file.packed or file.whole:
            part = min(bisect.bisect_right(bounds, first), parts) - 1
            result[part].append(Piece(file, 0, file.size))
            continue
        after = bisect.bisect_left(bounds, first + file.size)
        for part in range(bisect.bisect_right(bounds, first) - 1, min(after, parts)):
            start = max(bounds[part] - first, 0)
            end = min(bounds[part + 1] - first, file.size)
            if start < end:
                result[part].append(Piece(file, start, end))
    return result


def _readable(path: Path) -> bool:
    return path.name.endswith(tuple(READABLE))
