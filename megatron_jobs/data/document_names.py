"""Which document is which: PREFIX.names beside a token file holds a name for each of its documents.

The name is the record's own "id", or FILE:LINE. The file (little endian):

    magic 8 bytes, names in UTF-8 end to end, zeros to a whole 8 bytes,
    offsets int64 [D + 1] of the names in those bytes, D int64
"""

import contextlib
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import whole_file

MAGIC = b"MJNAMES\x01"
LOOK_DOCUMENTS = 1 << 18
LOOK_BYTES = 1 << 24


def names_path(prefix: Path) -> Path:
    """The file of the names."""
    return prefix.with_name(prefix.name + ".names")


@dataclass(frozen=True, eq=False)
class DocumentNames:
    """The names of a token file's documents, memory mapped: nothing is read before it is used."""

    path: Path
    offsets: NDArray[np.int64]
    """[D + 1], where each name starts in `letters`, and the end."""
    letters: NDArray[np.uint8]
    """[bytes], all names end to end, in UTF-8."""

    @classmethod
    def open(cls, prefix: Path) -> Self:
        """Map PREFIX.names; raises DataError when it is missing or damaged."""
        path = names_path(prefix)
        if not path.is_file():
            raise DataError(f"{path}: no such file; tokenize with names=true to have it")
        raw = _mapped(path)
        if len(raw) < len(MAGIC) + 16 or bytes(raw[: len(MAGIC)]) != MAGIC or len(raw) % 8:
            raise DataError(f"{path}: found {len(raw)} bytes that are no names of documents")
        count = int(raw[-8:].view(np.int64)[0])
        first = len(raw) - 8 * (count + 2)
        if count < 0 or first < len(MAGIC):
            raise DataError(
                f"{path}: found {count} names in {len(raw)} bytes, cut short or damaged"
            )
        offsets = raw[first:-8].view(np.int64)
        if offsets[0] != 0 or not 0 <= first - len(MAGIC) - offsets[-1] < 8:
            raise DataError(f"{path}: names end at {offsets[-1]}, not at {first - len(MAGIC)}")
        return cls(path, offsets, raw[len(MAGIC) : len(MAGIC) + int(offsets[-1])])

    @classmethod
    def of(cls, tokens: TokenFile) -> Self:
        """The names of a token file; DataError also when they are not as many as its documents."""
        names, documents = cls.open(tokens.prefix), len(tokens.documents) - 1
        if len(names) != documents:
            found = f"found {len(names)} names, {tokens.prefix}.idx has {documents} documents"
            raise DataError(f"{names.path}: {found}; tokenize again")
        return names

    def __len__(self) -> int:
        """Documents."""
        return len(self.offsets) - 1

    def __getitem__(self, document: int) -> str:
        """The name of a document, counted from 0."""
        if not 0 <= document < len(self):
            raise IndexError(f"{self.path}: document {document} of {len(self)}")
        start, end = self.offsets[document : document + 2]
        return self.letters[start:end].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        """All names, in order."""
        for first in range(0, len(self), LOOK_DOCUMENTS):
            ends = self.offsets[first : first + LOOK_DOCUMENTS + 1]
            piece = self.letters[ends[0] : ends[-1]].tobytes()
            cuts = (ends - ends[0]).tolist()
            for start, end in pairwise(cuts):
                yield piece[start:end].decode("utf-8")

    def find(self, name: str) -> list[int]:
        """The documents of a name, rising; none, or several where names are not unique."""
        return self.find_all([name])[name]

    def find_all(self, names: Iterable[str]) -> dict[str, list[int]]:
        """The documents of each of `names`. One pass over the file, in bounded memory."""
        found: dict[str, list[int]] = {name: [] for name in names}
        wanted: dict[int, set[bytes]] = {}
        for name in found:
            raw = name.encode("utf-8", "surrogatepass")
            wanted.setdefault(len(raw), set()).add(raw)
        for first in range(0, len(self), LOOK_DOCUMENTS):
            ends = self.offsets[first : first + LOOK_DOCUMENTS + 1]
            sizes = np.diff(ends)
            for size, raws in wanted.items():
                places = np.flatnonzero(sizes == size)
                for place, raw in self._matches(ends[places], places, size, raws):
                    found[raw.decode("utf-8")].append(first + place)
        return found

    def _matches(
        self, starts: NDArray[np.int64], places: NDArray[np.int64], size: int, raws: set[bytes]
    ) -> Iterator[tuple[int, bytes]]:
        """(place, name) of those that are among `raws`, all of `size` bytes."""
        if size == 0:
            yield from ((int(place), b"") for place in places)
            return
        factors = np.random.default_rng(size).integers(1, 1 << 63, size, np.uint64) | np.uint64(1)
        keys = np.frombuffer(b"".join(raws), np.uint8).reshape(-1, size) @ factors
        step = max(1, LOOK_BYTES // size)
        for cut in range(0, len(places), step):
            rows = self.letters[starts[cut : cut + step, None] + np.arange(size)]
            hits = np.flatnonzero(np.isin(rows @ factors, keys))
            for place, row in zip(places[cut + hits], rows[hits], strict=True):
                if (raw := row.tobytes()) in raws:
                    yield int(place), raw


@contextlib.contextmanager
def write_document_names(prefix: Path) -> Iterator["NamesWriter"]:
    """A writer of PREFIX.names, which appears when all went well."""
    with whole_file(names_path(prefix)) as part, write_names_part(part) as writer:
        yield writer


@contextlib.contextmanager
def write_names_part(path: Path) -> Iterator["NamesWriter"]:
    """The same to `path`, where what holds it is unfinished: nothing is synced or renamed."""
    with path.open("wb") as file, tempfile.TemporaryFile(dir=path.parent) as sizes:
        writer = NamesWriter(file, sizes)
        yield writer
        writer.finish()


def merge_document_names(prefixes: Iterable[Path], prefix: Path) -> None:
    """Join the names of token files, in order, into PREFIX.names."""
    with write_document_names(prefix) as writer:
        for one in prefixes:
            names = DocumentNames.open(one)
            for first in range(0, len(names), LOOK_DOCUMENTS):
                ends = names.offsets[first : first + LOOK_DOCUMENTS + 1]
                writer.add(names.letters[ends[0] : ends[-1]].data, np.diff(ends))


class NamesWriter:
    """Writes names as they come; made by `write_document_names`."""

    def __init__(self, file: IO[bytes], sizes: IO[bytes]) -> None:
        self._file = file
        self._sizes = sizes
        self._file.write(MAGIC)

    def add(self, letters: bytes | memoryview, sizes: NDArray[Any]) -> None:
        """Add names: `letters` in UTF-8 end to end, cut by `sizes` [names] in bytes."""
        if int(sizes.sum(dtype=np.int64)) != len(letters):
            raise ValueError(f"sizes add up to {sizes.sum()}, letters are {len(letters)} bytes")
        self._file.write(letters)
        self._sizes.write(sizes.astype(np.int64).tobytes())

    def add_names(self, names: Iterable[str]) -> None:
        """Add names one by one."""
        raws = [name.encode("utf-8") for name in names]
        self.add(b"".join(raws), np.array([len(raw) for raw in raws], dtype=np.int64))

    def finish(self) -> None:
        """Write where the names lie."""
        self._file.write(b"\0" * (-self._file.tell() % 8))
        self._sizes.seek(0)
        end, count = np.int64(0), 0
        self._file.write(end.tobytes())
        while piece := self._sizes.read(8 * LOOK_DOCUMENTS):
            ends = np.cumsum(np.frombuffer(piece, np.int64)) + end
            self._file.write(ends.tobytes())
            end, count = ends[-1], count + len(ends)
        self._file.write(np.int64(count).tobytes())


def _mapped(path: Path) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
