"""Lines put aside: written part by part with their bytes, joined into one rejected.jsonl.

Each line of rejected.jsonl is {"file", "line", "reason", "bytes", "text" or "base64"}: the line as
it was, in base64 where it is not UTF-8. However long it is, it is only held in chunks.
"""

import base64
import codecs
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from megatron_jobs.text.documents import Rejected

HEADS = "rejected.heads.jsonl"
RAW = "rejected.raw"
CHUNK = 3 << 18
"""Bytes; a multiple of three, so that chunks of base64 can be put end to end."""


class RejectWriter:
    """Collects the rejected lines of one part in two files: what they are, and their bytes."""

    def __init__(self, heads: IO[str], raw: IO[bytes]) -> None:
        self.reasons: Counter[str] = Counter()
        self._heads = heads
        self._raw = raw

    def add(self, piece: int, rejected: Rejected) -> None:
        """Put a line of the part's piece number `piece` aside."""
        size, utf8 = self._copy(rejected.raw)
        head = [piece, rejected.number, rejected.reason, size, utf8]
        self._heads.write(json.dumps(head) + "\n")
        self.reasons[rejected.reason] += 1

    def _copy(self, chunks: Iterable[bytes]) -> tuple[int, bool]:
        """Write all chunks; (bytes, whether they are UTF-8)."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        size, utf8 = 0, True
        for chunk in chunks:
            self._raw.write(chunk)
            size += len(chunk)
            utf8 = utf8 and _decodes(decoder, chunk)
        return size, utf8 and _decodes(decoder, b"", final=True)


def _decodes(decoder: codecs.IncrementalDecoder, chunk: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


def write_rejects(part: Path, lines_before: list[tuple[Path, int]], out: IO[str]) -> Iterator[str]:
    """Add a part's rejected lines to `out`; yields `FILE:LINE: reason` of each.

    Args:
        part: folder where a `RejectWriter` wrote HEADS and RAW.
        lines_before: for each piece of the part, its file and the lines before it in that file.
    """
    with (part / HEADS).open(encoding="utf-8") as heads, (part / RAW).open("rb") as raw:
        for head in heads:
            piece, number, reason, size, utf8 = json.loads(head)
            file, before = lines_before[piece]
            record = {"file": str(file), "line": before + number, "reason": reason, "bytes": size}
            _write_record(record, _chunks(raw, size), utf8, out)
            yield f"{file}:{before + number}: {reason}"


def _write_record(
    record: dict[str, Any], chunks: Iterator[bytes], utf8: bool, out: IO[str]
) -> None:
    """One line of JSON; the last value is streamed."""
    name = "text" if utf8 else "base64"
    out.write(json.dumps(record, ensure_ascii=False)[:-1] + f', "{name}": "')
    decoder = codecs.getincrementaldecoder("utf-8")()
    for chunk in chunks:
        if utf8:
            out.write(json.dumps(decoder.decode(chunk), ensure_ascii=False)[1:-1])
        else:
            out.write(base64.b64encode(chunk).decode("ascii"))
    out.write('"}\n')


def _chunks(raw: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        chunk = raw.read(min(size, CHUNK))
        assert chunk, f"{size} bytes of a rejected line are missing"
        size -= len(chunk)
        yield chunk
