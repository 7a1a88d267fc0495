"""Saving in two phases: everything under a name that is never read, then one rename."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing

from megatron_jobs.checkpoint.manifest import (
    Manifest,
    describe_files,
    latest_checkpoint,
    remove_older,
    set_latest,
    step_folder,
    write_manifest,
)
from megatron_jobs.checkpoint.state import (
    Training,
    content_metadata,
    fingerprint,
    random_state,
    sharded_state,
    state_bytes,
)
from megatron_jobs.errors import UserError
from megatron_jobs.parallel.cures import prepare_for_save
from megatron_jobs.runtime.files import PARTIAL, publish_folder, remove

RANDOM = "random.pt"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def save_checkpoint(
    root: Path, step: int, training: Training, record: dict[str, Any], *, keep: int = 0
) -> Path:
    """Save the state as ROOT/step-N and make it the latest. Called by every rank.

    Args:
        record: what the loop wants back when it goes on; JSON.
        keep: how many checkpoints stay, this one included; 0 keeps all.
    Raises: UserError on every rank when the disk is full or cannot be written; the checkpoint that
        was the latest still is, and nothing of the new one is left.
    """
    target = step_folder(root, step)
    part = target.with_name(target.name + PARTIAL)
    agree(lambda: _make_room(part, training), part, root)
    agree(lambda: _write(part, training), part, root)
    hashes, randoms = gather(fingerprint(training)), gather(random_state())

    def publish() -> None:
        if dist.get_rank() != 0:
            return
        torch.save(randoms, part / RANDOM)
        files = describe_files(part)
        write_manifest(part, Manifest(step, training.layout, record, hashes, files))
        remove(target)
        publish_folder(part, target)
        set_latest(root, target)
        remove_older(root, keep)

    agree(publish, part, root)
    return target


def _make_room(part: Path, training: Training) -> None:
    """Begin with an empty folder on a disk that has the room; every rank asks the same disk."""
    needed = sum(gather(state_bytes(training)))
    if dist.get_rank() == 0:
        remove(part)
        part.mkdir(parents=True)
        free = shutil.disk_usage(part).free
        if free < needed:
            raise OSError(errno.ENOSPC, f"{needed:,} bytes are needed, {free:,} are free")


def _write(part: Path, training: Training) -> None:
    prepare_for_save(training.chunks)
    state = sharded_state(training, loading=False)
    dist_checkpointing.save(state, str(part), content_metadata=content_metadata())


def agree(work: Callable[[], None], part: Path, root: Path) -> None:
    """Do `work` on every rank; a file-system error of one fails all, in plain words."""
    error = ""
    try:
        work()
    except Exception as raised:
        found = _os_error(raised)
        if found is None:
            raise
        full = "the disk is full: " if found.errno in FULL else ""
        error = f"{full}{found.strerror or found}"
    errors = [text for text in gather(error) if text]
    if not errors:
        return
    if dist.get_rank() == 0:
        remove(part)
    dist.barrier()
    name = part.name.removesuffix(PARTIAL)
    before = latest_checkpoint(root)
    still = f"the latest checkpoint is still {before.name}" if before else "there is no checkpoint"
    raise UserError(f"{root / name}: could not be saved, {errors[0]}; {still}")


def _os_error(error: BaseException | None) -> OSError | None:
    """The file-system error behind an error, however it was wrapped."""
    seen: list[Any] = [error]
    while seen:
        found = seen.pop()
        if isinstance(found, OSError):
            return found
        if isinstance(found, BaseException):
            seen += [found.__cause__, found.__context__]
            failures = getattr(found, "failures", {})  # torch's CheckpointException, by rank
            seen += [wrapped[0] for wrapped in failures.values()]
    return None


def gather(value: Any) -> list[Any]:
    """The values of all ranks, on every rank."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
