"""Redaction as a pass over records, with a sample of what was replaced, for people to review."""

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from megatron_jobs.runtime.files import write_text
from megatron_jobs.text.record import Record
from megatron_jobs.text.redact import Found, Redactor
from megatron_jobs.text.shards import read_shard, shards_below

CONTEXT = 40
"""Characters before and after what was replaced."""


class Redacting:
    """Redacts texts, counts by kind, and notes a sample.

    Of each kind those are noted whose hash, of record and place, is among the lowest `sample` so
    far: all that `write_review` takes of all units are among those that each unit has noted.

    Args:
        metadata: whether the address and all strings of the metadata are redacted as well.
    """

    def __init__(self, redactor: Redactor, *, sample: int, metadata: bool = True) -> None:
        self.redactor, self.sample, self.metadata = redactor, sample, metadata
        self.counts: Counter[str] = Counter()
        self.lowest: dict[str, list[int]] = {}
        self.noted: list[dict[str, Any]] = []

    def treat(self, record: Record) -> Record:
        """The record with its text redacted."""
        text, found = self.redactor.redact(record.text)
        self.noted = []
        if self.metadata:
            record.url = self._redact_value(record.url)
            record.metadata = self._redact_value(record.metadata)
        if not found:
            return record
        for one in found:
            self.counts[f"redacted.{one.kind}"] += 1
        self.counts["redacted_documents"] += 1
        self._note(record, text, found)
        record.text = text
        return record

    def _redact_value(self, value: Any) -> Any:
        """A value of JSON with all its strings redacted."""
        if isinstance(value, str):
            text, found = self.redactor.redact(value)
            self.counts["redacted_in_metadata"] += len(found)
            return text
        if isinstance(value, dict):
            return {name: self._redact_value(part) for name, part in value.items()}
        if isinstance(value, list):
            return [self._redact_value(part) for part in value]
        return value

    def numbers(self) -> dict[str, int]:
        """Counts by kind; begins a new unit."""
        counts = {name: count for name, count in self.counts.items() if count}
        self.counts.clear()
        self.lowest.clear()
        return counts

    def notes(self) -> Iterable[dict[str, Any]]:
        """Of the last record, what may be in the sample."""
        return self.noted

    def _note(self, record: Record, text: str, found: list[Found]) -> None:
        shift, data = 0, text.encode()
        for one in found:
            begin = one.begin + shift
            end = begin + len(one.replacement)
            shift += len(one.replacement) - (one.end - one.begin)
            order = _order(record.id, one)
            if self._is_low(one.kind, order):
                before = data[max(0, begin - 4 * CONTEXT) : begin].decode("utf-8", "ignore")
                after = data[end : end + 4 * CONTEXT].decode("utf-8", "ignore")
                self.noted.append(
                    {
                        "kind": one.kind,
                        "id": record.id,
                        "before": before[-CONTEXT:],
                        "shown": partly(one.value),
                        "replacement": one.replacement.decode(),
                        "after": after[:CONTEXT],
                        "order": order,
                    }
                )

    def _is_low(self, kind: str, order: int) -> bool:
        heap = self.lowest.setdefault(kind, [])  # negated: its first is the highest order
        if len(heap) < self.sample:
            heapq.heappush(heap, -order)
            return True
        if not heap or order >= -heap[0]:
            return False
        heapq.heapreplace(heap, -order)
        return True


def partly(value: bytes) -> str:
    """The beginning and end of a value, as little as tells what it is, and its length."""
    text = value.decode("utf-8", "replace")
    shown = max(1, min(2, len(text) // 6))
    return f"{text[:shown]}…{text[-shown:]} ({len(text)})"


def write_review(shards: Path, path: Path, *, sample: int) -> None:
    """Write the lowest `sample` notes of each kind below a folder, by kind and order, as JSONL."""
    kept: dict[str, list[dict[str, Any]]] = {}
    for note in _notes_below(shards):
        found = kept.setdefault(note["kind"], [])
        found.append(note)
        if len(found) > 2 * sample:
            kept[note["kind"]] = _lowest(found, sample)
    lines = [
        json.dumps({k: v for k, v in note.items() if k != "order"}, ensure_ascii=False)
        for kind in sorted(kept)
        for note in _lowest(kept[kind], sample)
    ]
    write_text(path, "".join(line + "\n" for line in lines))


def _lowest(notes: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    return sorted(notes, key=lambda note: (note["order"], note["id"]))[:count]


def _notes_below(folder: Path) -> Iterator[dict[str, Any]]:
    for shard in shards_below(folder):
        for line in read_shard(shard):
            yield json.loads(line)


def _order(name: str, one: Found) -> int:
    """A number by chance, always the same for a place in a record."""
    what = f"{name}\0{one.kind}\0{one.begin}".encode()
    return int.from_bytes(blake2b(what, digest_size=6).digest(), "big")
