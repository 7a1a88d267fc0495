"""Cuts out of texts what stands in earlier ones, byte for byte.

Source: Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better",
arXiv:2107.06499 (ExactSubstr). What stands first is left.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np

from megatron_jobs._repeats import repeated_stretches
from megatron_jobs.errors import UserError
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

RULE = "repeats.too_short"
MOST_BYTES = (1 << 31) - 3
"""Of the texts of a unit: suffixes are counted in 32 bits."""


class Repeats:
    """Cuts repeated stretches out of the records of a unit.

    Args:
        length: bytes, the least that must repeat.
        least: bytes, without white space at both ends, that a text must have left after a cut.
    """

    def __init__(self, length: int, least: int) -> None:
        self.length, self.least = length, least
        self.counts: dict[str, int] = {}
        self._cuts: Iterator[list[tuple[int, int]]] = iter(())

    def prepare(self, records: Iterable[Record]) -> None:
        """Find the stretches of a whole unit.

        Raises: UserError when its texts have 2 GiB or more.
        """
        texts = [record.text.encode() for record in records]
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        size = int(ends[-1]) if texts else 0
        if size > MOST_BYTES:
            found = f"a unit has {size / 1e9:.1f} GB of text, at most 2.1 can be compared"
            raise UserError(f"unit_mb: {found}; make it smaller")
        joined = b"".join(texts)
        del texts
        threads = len(os.sched_getaffinity(0))
        stretches = repeated_stretches(joined, ends, length=self.length, threads=threads)
        self._cuts = _by_text(stretches.tolist(), [0, *ends.tolist()])

    def treat(self, record: Record) -> Record | Verdict:
        cuts = next(self._cuts)
        if not cuts:
            return record
        raw = record.text.encode()
        kept, at = [], 0
        for start, end in (_whole_letters(raw, cut) for cut in cuts):
            kept.append(raw[at:start])
            at = end
        kept.append(raw[at:])
        text = b"".join(kept)
        self._count("cut_documents", 1)
        self._count("cut_bytes", len(raw) - len(text))
        if len(text.strip()) < self.least:
            return Verdict(RULE, len(text.strip()), self.least)
        record.text = text.decode()
        return record

    def numbers(self) -> dict[str, int]:
        found, self.counts = self.counts, {}
        return found

    def _count(self, name: str, count: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + count


def _by_text(stretches: list[list[int]], bounds: list[int]) -> Iterator[list[tuple[int, int]]]:
    """The stretches of each text, counted from its beginning; one may span several texts."""
    place = 0
    for first, last in pairwise(bounds):
        found = []
        while place < len(stretches) and stretches[place][0] < last:
            start, end = stretches[place]
            found.append((max(start, first) - first, min(end, last) - first))
            if end > last:
                break
            place += 1
        yield found


def _whole_letters(raw: bytes, cut: tuple[int, int]) -> tuple[int, int]:
    """A cut of UTF-8 made smaller until it takes whole letters."""
    start, end = cut
    while start < end and raw[start] & 0xC0 == 0x80:
        start += 1
    while end > start and end < len(raw) and raw[end] & 0xC0 == 0x80:
        end -= 1
    return start, end
