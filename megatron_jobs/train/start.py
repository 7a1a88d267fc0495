"""Where a training goes on: at its own latest checkpoint, or at another's that it is given."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from megatron_jobs.checkpoint.load import load_checkpoint
from megatron_jobs.checkpoint.manifest import latest_checkpoint, read_manifest
from megatron_jobs.checkpoint.state import Training
from megatron_jobs.data.start import (
    Start,
    check_fresh_start,
    noted_step,
    start_of,
    start_problems,
)
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.parallel.cures import refresh_optimizer
from megatron_jobs.runtime.files import write_json
from megatron_jobs.runtime.saved_steps import LOADED, read_saved_step

CHECKPOINTS = "checkpoints"
SAME_SAMPLES = ("samples_per_step", "seq_len")
"""Notes of a checkpoint that must be equal when it is gone on from."""
T = TypeVar("T")


@dataclass(frozen=True)
class Load:
    """A checkpoint of another training; it counts until there is one of its own."""

    path: Path
    """It, or a folder whose latest is taken."""
    finetune: bool = False
    """Take its weights alone."""


def agree_on_start(
    folder: Path, load: Load | None, record: dict[str, Any], facts: dict[str, Any], *, steps: int
) -> tuple[Start, Load | None]:
    """Where a job begins, and the very checkpoint that `load` means; the same on every rank.

    Args:
        folder: of the job; where nothing is saved in it yet, RUN/JOB/loaded.json is written.
        load: None for a training that begins with its first weights.
        record: what the job's checkpoints will hold, without its index.
        facts: index.json of its index.
        steps: its last step.
    Raises: UserError when the checkpoint does not fit the job, or samples would be read twice or
        left out; DataError when it is none.
    """

    def find() -> tuple[Start, Load | None]:
        own = latest_checkpoint(folder / CHECKPOINTS)
        if own is not None:
            before = read_manifest(own)
            return Start(before.step, noted_step(before.record)), load
        if load is None:
            check_fresh_start(facts)
            return Start(), None
        saved = read_saved_step(load.path)
        problems = start_problems(saved, record, facts, steps=steps, finetune=load.finetune)
        found = [f"{setting}: {sentence}" for setting, sentence in problems]
        if found:
            raise UserError("; ".join(found))
        start = start_of(saved, facts, finetune=load.finetune)
        write_json(folder / LOADED, {"checkpoint": str(saved.folder), **asdict(start)})
        return start, Load(saved.folder, load.finetune)

    return from_leader(find)


def resume(
    root: Path, training: Training, record: dict[str, Any], load: Load | None
) -> tuple[int, dict[str, float]]:
    """Fill `training` from the latest checkpoint below `root`, or else from `load`.

    Returns: the last step that was made, and the numbers of this training; 0 and none at its start.
    Raises: UserError when it was made of other batches: steps would then mean other samples.
    """
    own = from_leader(lambda: latest_checkpoint(root))
    if own is not None:
        return _go_on(own, training, record)
    if load is None:
        return 0, {}
    if not load.finetune:
        return _go_on(load.path, training, record)[0], {}
    load_checkpoint(load.path, Training(training.chunks, None, {}))
    refresh_optimizer(training.optimizer)
    print(f"began with the weights of {load.path}", flush=True)
    return 0, {}


def _go_on(found: Path, training: Training, record: dict[str, Any]) -> tuple[int, dict[str, float]]:
    manifest = load_checkpoint(found, training)
    for name in SAME_SAMPLES:
        before, now = manifest.record.get(name), record.get(name)
        if before != now:
            raise UserError(f"{name}: {now}, but {found} was trained with {before}")
    print(f"resumed from {found}", flush=True)
    return manifest.step, manifest.record.get("numbers", {})


def from_leader(work: Callable[[], T]) -> T:
    """What the first rank finds by `work`, or the error that it finds; the same on every rank."""
    found: list[Any] = [None]
    if dist.get_rank() == 0:
        try:
            found = [work()]
        except (DataError, UserError) as error:
            found = [error]
    dist.broadcast_object_list(found)
    if isinstance(found[0], DataError | UserError):
        raise found[0]
    answer: T = found[0]
    return answer
