"""What a run writes down: metrics.jsonl, TensorBoard events, progress; on the leader alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from megatron_jobs.runtime.journal import NAME, Journal, rewind_journal
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank

TENSORBOARD = "tensorboard"


class SilentBoard:
    """The board of a rank that does not lead: it takes everything and writes nothing."""

    def record(self, step: int, kind: str, numbers: dict[str, float]) -> None:
        """Write the numbers of a step to metrics.jsonl and TensorBoard, under `kind/name`."""

    def show(self, step: int, **numbers: float) -> None:
        """Put the step and some numbers on the live progress line."""

    def sync(self) -> None:
        """All that was recorded to the disk: a checkpoint is to hold no step that they lack."""

    def close(self) -> None:
        """Everything to the disk, and no more."""


class Board(SilentBoard):
    """Records of steps and validations; what lost work had written is taken back."""

    def __init__(self, folder: Path, *, start: int, steps: int) -> None:
        rewind_journal(folder / NAME, start)
        self.journal = Journal(folder / NAME)
        self.events = SummaryWriter(str(folder / TENSORBOARD), purge_step=start + 1)
        self.progress = Progress(folder, total=steps, unit="steps")
        self.progress.update(start)

    def record(self, step: int, kind: str, numbers: dict[str, float]) -> None:
        entry: dict[str, Any] = {"step": step, "kind": kind, **numbers}
        self.journal.write(entry)
        for name, value in numbers.items():
            self.events.add_scalar(f"{kind}/{name}", value, step)

    def show(self, step: int, **numbers: float) -> None:
        self.progress.update(step, **numbers)

    def sync(self) -> None:
        self.events.flush()
        os.fsync(self.journal.file.fileno())

    def close(self) -> None:
        self.events.close()
        self.journal.file.close()


@contextmanager
def open_board(rank: Rank, folder: Path, *, start: int, steps: int) -> Iterator[SilentBoard]:
    """The board of this rank, for a run of `steps` that goes on after step `start`."""
    board = Board(folder, start=start, steps=steps) if rank.leads else SilentBoard()
    try:
        yield board
    finally:
        board.close()
