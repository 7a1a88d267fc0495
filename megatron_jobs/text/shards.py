"""Shards of records: JSONL in zstd, written whole or not at all, read line by line.

A stage's folder holds, for unit number N of its input (see `passes`),

    documents/N.jsonl.zst    the records that go on
    rejected/N.jsonl.zst     those that do not, each with its verdict
    quarantined/N.jsonl.zst  what is no record: {"place", "reason", "bytes", "head" (base64)}
    counts/N.json            written last: the unit is done
"""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import zstandard

from megatron_jobs.runtime.files import whole_file

DOCUMENTS, REJECTED, QUARANTINED, COUNTS = "documents", "rejected", "quarantined", "counts"
SUFFIX = ".jsonl.zst"
HEAD = 1 << 16
"""Bytes of what is quarantined that are kept."""
LEVEL = 1
"""Of zstd: twice as fast as its default, 3; files are an eighth larger."""


@dataclass(frozen=True)
class Verdict:
    """Why a record does not go on."""

    rule: str
    """Such as `gopher_quality.mean_word_length`: what `mj data verdicts` counts by."""
    found: Any = None
    """The value that broke the rule; a JSON value."""
    limit: Any = None
    """What the rule allows."""

    def as_object(self) -> dict[str, Any]:
        """As records keep it; `dataclasses.asdict`, which copies deeply, takes 20 times as long."""
        return {"rule": self.rule, "found": self.found, "limit": self.limit}


@dataclass(frozen=True)
class Quarantined:
    """Something in the input that is no record."""

    place: str
    """FILE:LINE, or FILE@OFFSET."""
    reason: str
    """A few words, the same for all of a kind."""
    size: int = 0
    """Bytes."""
    head: bytes = b""
    """How it begins, HEAD bytes at most."""


@dataclass(frozen=True)
class Skipped:
    """Something whole that holds no document, such as the request beside a response."""

    kind: str
    """One word, the same for all of a kind."""


def shard_name(unit: int) -> str:
    """File name of a unit's shard; they sort by number."""
    return f"{unit:06d}{SUFFIX}"


@contextlib.contextmanager
def write_shard(path: Path) -> Iterator[IO[bytes]]:
    """A stream for lines; the file is there, whole, after the block."""
    with whole_file(path) as part, part.open("wb") as file:
        packer = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        with packer.stream_writer(file, closefd=False) as stream:
            yield stream


def read_shard(path: Path) -> Iterator[bytes]:
    """Its lines, without their ends."""
    with path.open("rb") as file:
        stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        for line in io.BufferedReader(stream, 1 << 20):
            yield line.rstrip(b"\n")


def shards_below(folder: Path) -> list[Path]:
    """The shards of a folder, by number."""
    return sorted(folder.glob(f"*{SUFFIX}"))
