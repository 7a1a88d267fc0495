"""Token files: PREFIX.bin holds token ids, PREFIX.idx says where sequences and documents lie.

The format is Megatron's, to the byte (little endian):

    magic 9 bytes, version uint64 = 1, dtype code uint8, sequences S uint64, entries D + 1 uint64,
    lengths int32 [S] in tokens, pointers int64 [S] in bytes into the .bin,
    documents int64 [D + 1]: document d is made of the sequences documents[d] to documents[d + 1]
"""

import contextlib
import hashlib
import os
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import whole_file

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPES: dict[int, str] = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float64",
    7: "float32",
    8: "uint16",
}
CODES = {name: code for code, name in DTYPES.items()}
SMALL_VOCABULARY = 65500
"""Below this many ids a token takes two bytes, as in megatron-core."""
COPY_BYTES = 1 << 22
LOOK_TOKENS = 1 << 24


def bin_path(prefix: Path) -> Path:
    """The file of the token ids."""
    return prefix.with_name(prefix.name + ".bin")


def idx_path(prefix: Path) -> Path:
    """The file of lengths, pointers and documents; without it the token file is not there."""
    return prefix.with_name(prefix.name + ".idx")


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """uint16 where the ids fit, else int32."""
    return np.dtype("uint16" if vocab_size < SMALL_VOCABULARY else "int32")


@dataclass(frozen=True, eq=False)
class TokenFile:
    """A token file, memory mapped: nothing is read before it is used."""

    prefix: Path
    dtype: np.dtype[Any]
    lengths: NDArray[np.int32]
    """[S], tokens of each sequence."""
    pointers: NDArray[np.int64]
    """[S], where each sequence starts in the .bin, in bytes."""
    documents: NDArray[np.int64]
    """[D + 1], the first sequence of each document, and the end."""
    ids: NDArray[Any]
    """[tokens], the whole .bin."""

    @classmethod
    def open(cls, prefix: Path) -> Self:
        """Map PREFIX.bin and PREFIX.idx; raises DataError naming file and field when they lie.

        Looks at sizes, header and the last entries only; `check` looks at all of them.
        """
        idx, binary = idx_path(prefix), bin_path(prefix)
        for path in (idx, binary):
            if not path.is_file():
                raise DataError(f"{path}: no such file; a token file is a .bin and a .idx")
        raw = _mapped(idx, np.dtype("uint8"))
        dtype, sequences, entries = _read_header(idx, raw)
        size = HEADER.size + 12 * sequences + 8 * entries
        if len(raw) != size:
            counts = f"{sequences} sequences and {entries} document entries"
            raise DataError(f"{idx}: size: {len(raw)} bytes, {counts} need {size}")
        bytes_ = binary.stat().st_size
        if bytes_ % dtype.itemsize:
            raise DataError(f"{binary}: size: {bytes_} bytes are no whole number of {dtype} tokens")
        lengths_end = HEADER.size + 4 * sequences
        pointers_end = lengths_end + 8 * sequences
        file = cls(
            prefix=prefix,
            dtype=dtype,
            lengths=raw[HEADER.size : lengths_end].view(np.int32),
            pointers=raw[lengths_end:pointers_end].view(np.int64),
            documents=raw[pointers_end:].view(np.int64),
            ids=_mapped(binary, dtype),
        )
        file._check_ends()
        return file

    def __len__(self) -> int:
        """Sequences."""
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return int(self.lengths.sum(dtype=np.int64))

    def read(self, sequence: int, start: int = 0, count: int | None = None) -> NDArray[Any]:
        """`count` tokens of a sequence from `start` on (to its end by default), not copied."""
        length = int(self.lengths[sequence])
        count = length - start if count is None else count
        first = int(self.pointers[sequence]) // self.dtype.itemsize + start
        if start < 0 or count < 0 or start + count > length or first + count > len(self.ids):
            raise DataError(
                f"{self.prefix}.bin: sequence {sequence} of {length} tokens at {first}: "
                f"{count} from {start} on lie outside it or the file's {len(self.ids)} tokens"
            )
        return self.ids[first : first + count]

    def least_vocab(self) -> int:
        """One more than the largest id; DataError when one is negative. Reads the whole .bin."""
        largest = -1
        for start in range(0, len(self.ids), LOOK_TOKENS):
            piece = self.ids[start : start + LOOK_TOKENS]
            largest = max(largest, int(piece.max()))
            if piece.min() < 0:
                place = start + int(piece.argmin())
                found = f"token {place}: found {piece.min()}"
                raise DataError(f"{bin_path(self.prefix)}: {found}, ids must not be negative")
        return largest + 1

    def check(self) -> None:
        """Raise DataError unless every length, pointer and document is possible."""
        idx = idx_path(self.prefix)
        _check_all(idx, "lengths", self.lengths, self.lengths >= 0, "must not be negative")
        ends = self.pointers + self.lengths.astype(np.int64) * self.dtype.itemsize
        inside = (self.pointers >= 0) & (ends <= self.ids.nbytes)
        rule = f"must lie in the {self.ids.nbytes} bytes of the .bin with its sequence"
        _check_all(idx, "pointers", self.pointers, inside, rule)
        aligned = self.pointers % self.dtype.itemsize == 0
        _check_all(idx, "pointers", self.pointers, aligned, f"must be at a whole {self.dtype}")
        rising = np.diff(self.documents, prepend=0) >= 0
        _check_all(idx, "documents", self.documents, rising, "must not fall")

    def _check_ends(self) -> None:
        idx = idx_path(self.prefix)
        if len(self.documents) == 0 or self.documents[0] != 0:
            found = "nothing" if len(self.documents) == 0 else self.documents[0]
            raise DataError(f"{idx}: documents[0]: found {found}, must be 0")
        if self.documents[-1] != len(self):
            last = self.documents[-1]
            raise DataError(f"{idx}: documents[-1]: found {last}, must be {len(self)} sequences")
        if len(self) == 0:
            return
        end = int(self.pointers[-1]) + int(self.lengths[-1]) * self.dtype.itemsize
        if not 0 <= end <= self.ids.nbytes:
            have = f"{bin_path(self.prefix)} has {self.ids.nbytes}"
            raise DataError(f"{idx}: pointers[-1]: the last sequence ends at byte {end}, {have}")


def _mapped(path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The file as a plain array (indexing a memmap object is ten times slower)."""
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r"))


def _read_header(idx: Path, raw: NDArray[np.uint8]) -> tuple[np.dtype[Any], int, int]:
    """(dtype, sequences, document entries)."""
    if len(raw) < HEADER.size:
        raise DataError(f"{idx}: header: {len(raw)} bytes, it takes {HEADER.size}; cut short?")
    magic, version, code, sequences, entries = HEADER.unpack(raw[: HEADER.size].tobytes())
    if magic != MAGIC:
        raise DataError(f"{idx}: magic: found {magic!r}, a token index starts with {MAGIC!r}")
    if version != VERSION:
        raise DataError(f"{idx}: version: found {version}, only {VERSION} can be read")
    if code not in DTYPES:
        raise DataError(f"{idx}: dtype code: found {code}, known are {min(DTYPES)}-{max(DTYPES)}")
    return np.dtype(DTYPES[code]), sequences, entries


def _check_all(
    idx: Path, field: str, values: NDArray[Any], good: NDArray[np.bool_], rule: str
) -> None:
    if not good.all():
        place = int(np.argmin(good))
        raise DataError(f"{idx}: {field}[{place}]: found {values[place]}, {rule}")


@contextlib.contextmanager
def write_token_file(
    prefix: Path, *, vocab_size: int, dtype: np.dtype[Any] | None = None
) -> Iterator["TokenFileWriter"]:
    """A writer of PREFIX.bin and PREFIX.idx, which appear together when all went well.

        with write_token_file(prefix, vocab_size=50304) as writer:
            writer.add(ids, [5, 3])

    Args:
        vocab_size: ids are checked to be below it; says how many bytes a token takes.
        dtype: another than `token_dtype(vocab_size)`.
    """
    dtype = dtype or token_dtype(vocab_size)
    with whole_file(idx_path(prefix)) as idx, whole_file(bin_path(prefix)) as binary:
        with binary.open("wb") as file:
            writer = TokenFileWriter(file, dtype, vocab_size, prefix)
            yield writer
        writer.write_index(idx)
        idx_path(prefix).unlink(missing_ok=True)  # never an old .idx beside the new .bin


@contextlib.contextmanager
def write_token_part(prefix: Path, *, vocab_size: int) -> Iterator["TokenFileWriter"]:
    """The same where the folder is unfinished as a whole: nothing is synced or renamed."""
    with bin_path(prefix).open("wb") as file:
        writer = TokenFileWriter(file, token_dtype(vocab_size), vocab_size, prefix)
        yield writer
    writer.write_index(idx_path(prefix))


class TokenFileWriter:
    """Collects documents; made by `write_token_file`."""

    def __init__(self, file: BinaryIO, dtype: np.dtype[Any], vocab_size: int, prefix: Path) -> None:
        self.dtype = dtype
        self.vocab_size = vocab_size
        self.prefix = prefix
        self.lengths = array("i")
        self.documents = array("q", [0])
        self.checksum = 0
        """CRC-32 of what `add_batch` has written."""
        self._file = file

    def add(self, ids: ArrayLike, lengths: Iterable[int]) -> None:
        """Add documents of one sequence each: `ids` [tokens] end to end, cut by `lengths`."""
        before = len(self.lengths)
        self._write_ids(np.asarray(ids), lengths)
        self.documents.extend(range(before + 1, len(self.lengths) + 1))

    def add_document(self, ids: ArrayLike, lengths: Sequence[int]) -> None:
        """Add one document made of the sequences that `lengths` cut from `ids` [tokens]."""
        self._write_ids(np.asarray(ids), lengths)
        self.documents.append(len(self.lengths))

    def add_batch(
        self, ids: NDArray[Any], lengths: NDArray[np.int32], sequences: NDArray[np.int32]
    ) -> None:
        """Add documents of so many `sequences` [documents] each, of so many tokens (`lengths`
        [sequences]). `ids` [tokens] are of the file's dtype and known to be below vocab_size."""
        assert ids.dtype == self.dtype, f"{ids.dtype} is not {self.dtype}"
        assert int(lengths.sum(dtype=np.int64)) == ids.size, f"{lengths.sum()} of {ids.size}"
        before = len(self.lengths)
        self._file.write(ids.data)
        self.checksum = zlib.crc32(ids.data, self.checksum)
        self.lengths.frombytes(lengths.tobytes())
        ends = np.cumsum(sequences, dtype=np.int64) + before
        self.documents.frombytes(ends.tobytes())

    def _write_ids(self, ids: NDArray[Any], lengths: Iterable[int]) -> None:
        before = len(self.lengths)
        self.lengths.extend(lengths)
        tokens = sum(self.lengths[before:])
        if ids.ndim != 1 or tokens != ids.size:
            raise ValueError(
                f"ids must be 1-D of {tokens} tokens (sum of lengths), got {ids.shape}"
            )
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocab_size:
            found = f"token ids from {ids.min()} to {ids.max()}"
            raise DataError(f"{self.prefix}: found {found}, must be below {self.vocab_size}")
        self._file.write(np.ascontiguousarray(ids, dtype=self.dtype).tobytes())

    def write_index(self, path: Path) -> None:
        """Write the .idx of all that was added."""
        lengths = np.frombuffer(self.lengths, dtype=np.int32)
        ends = np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
        pointers = np.concatenate(([0], ends[:-1])).astype(np.int64) if len(ends) else ends
        code = CODES[self.dtype.name]
        with path.open("wb") as file:
            file.write(HEADER.pack(MAGIC, VERSION, code, len(lengths), len(self.documents)))
            file.write(lengths.tobytes())
            file.write(pointers.tobytes())
            file.write(self.documents.tobytes())


def merge_token_files(prefixes: Iterable[Path], prefix: Path) -> str:
    """Join token files, in order, into one that equals what a single writer had written.

    Each is copied when `prefixes` gives it, so that they may come while others are being made.
    Holds no more in memory than one of them has in its .idx.
    Returns: SHA-256 of the .bin, in hex.
    Raises: DataError when they differ in dtype or one is damaged.
    """
    with whole_file(idx_path(prefix)) as idx, whole_file(bin_path(prefix)) as binary:
        with binary.open("wb") as file, ThreadPoolExecutor(2) as beside:
            merger = _Merger(file, beside)
            for one in prefixes:
                merger.add(one)
            merger.wait()
        with idx.open("wb") as file:
            file.writelines(merger.index())
        idx_path(prefix).unlink(missing_ok=True)  # never an old .idx beside the new .bin
    return merger.digest.hexdigest()


class _Merger:
    """Copies .bin after .bin to `file`; hashing and syncing go on beside it."""

    def __init__(self, file: BinaryIO, beside: ThreadPoolExecutor) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._beside = beside
        self._syncing: Future[None] | None = None
        self._prefixes: list[Path] = []
        self._sequences = self._documents = 0
        self._dtype = np.dtype("uint16")

    def add(self, prefix: Path) -> None:
        """Add the token file of a prefix."""
        part = TokenFile.open(prefix)
        self._dtype = self._dtype if self._prefixes else part.dtype
        _check_whole(part, self._dtype)
        self._prefixes.append(prefix)
        self._sequences += len(part)
        self._documents += len(part.documents) - 1
        for chunk in _chunks(part):
            hashed = self._beside.submit(self.digest.update, chunk)
            self._file.write(chunk)
            hashed.result()
        if self._syncing is None or self._syncing.done():  # so that little is left at the end
            self.wait()
            self._syncing = self._beside.submit(os.fdatasync, self._file.fileno())

    def wait(self) -> None:
        """Return when what goes on beside it has ended; raises what that has raised."""
        if self._syncing is not None:
            self._syncing.result()

    def index(self) -> Iterator[bytes | memoryview]:
        """The .idx of all."""
        code = CODES[self._dtype.name]
        yield HEADER.pack(MAGIC, VERSION, code, self._sequences, self._documents + 1)
        for piece in _merged_index(self._prefixes):
            yield piece.data


def _check_whole(part: TokenFile, dtype: np.dtype[Any]) -> None:
    """Raise DataError unless a part can be joined to others of `dtype`."""
    if part.dtype != dtype:
        raise DataError(f"{part.prefix}: dtype: found {part.dtype}, must be {dtype}")
    if part.tokens != len(part.ids):
        have = f"{len(part.ids)} tokens, its .idx tells of {part.tokens}"
        raise DataError(f"{bin_path(part.prefix)}: {have}; only whole files can be joined")


def _chunks(part: TokenFile) -> Iterator[bytes]:
    with bin_path(part.prefix).open("rb", buffering=0) as source:
        while chunk := source.read(COPY_BYTES):
            yield chunk


def _merged_index(prefixes: Sequence[Path]) -> Iterator[NDArray[Any]]:
    """Lengths, pointers and documents of all parts as if they were one file."""
    yield from (part.lengths for part in map(TokenFile.open, prefixes))
    start = 0
    for part in map(TokenFile.open, prefixes):
        ends = np.cumsum(part.lengths, dtype=np.int64) * part.dtype.itemsize
        yield start + ends - part.lengths * np.int64(part.dtype.itemsize)
        start += part.ids.nbytes
    yield np.zeros(1, np.int64)
    first = 0
    for part in map(TokenFile.open, prefixes):
        yield part.documents[1:] + first
        first += len(part)
