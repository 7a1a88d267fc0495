"""What ranks tell each other through files: in steps, at whose ends all wait for all.

A step that a rank has finished leaves its messages and a note of it, and is not done again after a
kill: who comes later reads the same. Messages are whole or absent.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from megatron_jobs.runtime.files import wait_for, whole_file, write_json
from megatron_jobs.runtime.shared import read_shared
from megatron_jobs.text.copies.arrays import I64

LONGEST_WAIT = 7 * 86400.0
"""Seconds; a rank that dies ends the job long before."""
CHUNK = 1 << 20
"""Rows of a message that are held in memory at once."""


class Exchange:
    """One rank's end of it.

    Args:
        folder: the same on all ranks.
        bounds: [world + 1], the first number that each rank owns.
    """

    def __init__(self, folder: Path, rank: int, bounds: I64) -> None:
        self.folder, self.rank, self.bounds = folder, rank, bounds
        self.world = len(bounds) - 1
        self.sent: dict[str, list[int]] = {}
        self.notes: dict[str, list[dict[str, Any]]] = {}

    def owners(self, numbers: I64) -> I64:
        """Which ranks own some numbers."""
        return np.searchsorted(self.bounds, numbers, side="right") - 1

    def is_done(self, step: str) -> bool:
        """Whether this rank has finished a step, now or before a kill."""
        return bool(read_shared(self._note(step, self.rank)))

    def finish(self, step: str, **facts: float) -> None:
        """Note that all messages of a step are written."""
        write_json(self._note(step, self.rank), {**facts, "to": self.sent.get(step, [])})

    def wait(self, step: str) -> list[dict[str, Any]]:
        """What each rank noted, when all have."""
        notes = {}
        for rank in range(self.world):

            def ready(rank: int = rank) -> bool:
                notes[rank] = read_shared(self._note(step, rank))
                return bool(notes[rank])

            wait_for(ready, f"rank {rank} to finish step {step}", seconds=LONGEST_WAIT)
        self.notes[step] = [json.loads(notes[rank]) for rank in range(self.world)]
        return self.notes[step]

    def send(self, step: str, owners: I64, rows: I64) -> None:
        """Rows [n, columns] to their owners [n]; a call replaces what an earlier one sent."""
        order = np.argsort(owners, kind="stable")
        cuts = np.searchsorted(owners[order], np.arange(self.world + 1))
        for to in range(self.world):
            chosen = order[cuts[to] : cuts[to + 1]]
            if len(chosen):
                self._write(step, to, np.ascontiguousarray(rows[chosen]))

    def receive(self, step: str, columns: int) -> Iterator[tuple[int, I64]]:
        """(rank, rows) of what was sent to this rank, in chunks, in the order of ranks."""
        for sender in self._senders(step):
            path = self._message(step, sender, self.rank)
            rows = np.memmap(path, np.int64, "r").reshape(-1, columns)
            for first in range(0, len(rows), CHUNK):
                yield sender, np.array(rows[first : first + CHUNK])

    def received(self, step: str, columns: int) -> I64:
        """All rows that were sent to this rank."""
        parts = [rows for _, rows in self.receive(step, columns)]
        return np.concatenate(parts) if parts else np.zeros((0, columns), np.int64)

    def send_words(self, step: str, words: Mapping[int, list[str]]) -> None:
        """Strings to ranks."""
        for to, some in words.items():
            self.sent.setdefault(step, []).append(to)
            with whole_file(self._message(step, self.rank, to)) as part:
                part.write_bytes(orjson.dumps(some))

    def received_words(self, step: str) -> dict[int, list[str]]:
        """The strings that each rank has sent to this one."""
        paths = {sender: self._message(step, sender, self.rank) for sender in self._senders(step)}
        return {sender: orjson.loads(path.read_bytes()) for sender, path in paths.items()}

    def forget(self) -> None:
        """Remove all messages, of all ranks; the notes stay."""
        for path in self.folder.glob("*/*-*"):
            path.unlink()

    def _senders(self, step: str) -> list[int]:
        """Those who sent something to this rank: a name is looked up only when it is there."""
        notes = self.notes.get(step) or self.wait(step)
        return [sender for sender, note in enumerate(notes) if self.rank in note["to"]]

    def _write(self, step: str, to: int, rows: I64) -> None:
        self.sent.setdefault(step, []).append(to)
        with whole_file(self._message(step, self.rank, to)) as part, part.open("wb") as file:
            rows.tofile(file)

    def _note(self, step: str, rank: int) -> Path:
        return self.folder / step / f"{rank}.done"

    def _message(self, step: str, sender: int, to: int) -> Path:
        return self.folder / step / f"{sender}-{to}"
