"""Saving in two phases: everything under a name that is never read, then one rename."""

import contextlib
import errno
import io
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
    file_names,
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
    share_bytes,
)
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.parallel.cures import fill_optimizer_state, prepare_for_save, writer_errors
from megatron_jobs.runtime.files import PARTIAL, publish_folder, remove
from megatron_jobs.runtime.heartbeat import pulse

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
    fill_optimizer_state(training.optimizer)
    needed = sum(gather(share_bytes(training)))
    agree(target, lambda: _make_room(part, needed), leader_only=True)
    agree(target, lambda: _write(part, training))
    hashes, randoms = gather(fingerprint(training)), gather(random_state())

    agree(target, lambda: _write_random(part, randoms), leader_only=True)
    files = _describe_together(target, part)

    def publish() -> None:
        write_manifest(part, Manifest(step, training.layout, record, hashes, files))
        remove(target)
        publish_folder(part, target)
        set_latest(root, target)

    agree(target, publish, leader_only=True)
    agree(
        target,
        lambda: remove_older(root, keep),
        leader_only=True,
        failed="is saved, but an older one could not be removed",
    )
    return target


def _describe_together(target: Path, part: Path) -> dict[str, Any]:
    """Sizes and hashes of all files; the leader says which there are, all ranks share the work.

    Each rank's own list would not do: nodes see a new file of a network file system late.
    """
    listed: list[list[str]] = [[]]
    agree(target, lambda: listed[0].extend(file_names(part)), leader_only=True)
    dist.broadcast_object_list(listed)
    names = listed[0][dist.get_rank() :: dist.get_world_size()]
    found: dict[str, Any] = {}
    agree(target, lambda: found.update(describe_files(part, names)))
    return {name: facts for share in gather(found) for name, facts in share.items()}


def _make_room(part: Path, needed: int) -> None:
    """Begin with an empty folder, on a disk that has the room."""
    remove(part)
    part.mkdir(parents=True)
    free = shutil.disk_usage(part).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{needed:,} bytes are needed, {free:,} are free")


def _write(part: Path, training: Training) -> None:
    prepare_for_save(training.chunks)
    state = sharded_state(training, loading=False)
    with writer_errors() as errors:
        dist_checkpointing.save(state, str(part), content_metadata=content_metadata())
    if errors:
        raise errors[0]


def _write_random(part: Path, randoms: list[Any]) -> None:
    """Through a buffer: torch, writing by itself, would hide why the disk refused."""
    buffer = io.BytesIO()
    torch.save(randoms, buffer)
    part.joinpath(RANDOM).write_bytes(buffer.getvalue())


def agree(
    target: Path,
    work: Callable[[], None],
    *,
    leader_only: bool = False,
    failed: str = "could not be saved",
) -> None:
    """Do `work` for the checkpoint `target` on every rank, or on the leader: a phase of a save.

    It begins and ends with a sign of life, and so does the wait for the other ranks.

    Raises: UserError on every rank, in plain words, when the file system of one refused; what there
        is of `target` is gone then, unless it is the latest already.
    """
    error = ""
    pulse()
    try:
        if dist.get_rank() == 0 or not leader_only:
            work()
    except Exception as raised:
        error = _refusal(raised)
        if not error:
            raise
    pulse()
    errors = [text for text in gather(error) if text]
    if not errors:
        return
    still = [_take_back(target) if dist.get_rank() == 0 else ""]
    dist.broadcast_object_list(still)
    raise UserError(f"{target}: {failed}: {errors[0]}; {still[0]}")


def _take_back(target: Path) -> str:
    """Remove what there is of a checkpoint that is not the latest; say which one is."""
    before = None
    with contextlib.suppress(OSError, DataError):
        before = latest_checkpoint(target.parent)
    leftovers = [target.with_name(target.name + PARTIAL)] + [target] * (before != target)
    for path in leftovers:
        with contextlib.suppress(OSError):
            remove(path)
    return f"the latest checkpoint is {before.name}" if before else "there is no checkpoint"


def _refusal(error: BaseException) -> str:
    """Why the file system refused, when that is what an error came from; else nothing."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    if found is None:
        return ""
    full = "the disk is full: " if found.errno in FULL else ""
    return f"{full}{found.strerror or found}"


def gather(value: Any) -> list[Any]:
    """The values of all ranks, on every rank."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
