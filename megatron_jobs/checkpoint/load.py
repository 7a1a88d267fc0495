"""Loading a checkpoint into any layout, and proving that what was loaded is what was saved."""

from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing

from megatron_jobs.checkpoint.manifest import Manifest, check_files, read_manifest
from megatron_jobs.checkpoint.save import RANDOM, gather
from megatron_jobs.checkpoint.state import (
    Training,
    chunk_names,
    fingerprint,
    set_random_state,
    sharded_state,
)
from megatron_jobs.errors import DataError
from megatron_jobs.parallel.cures import (
    fill_optimizer_state,
    mend_optimizer_after_load,
    unwrap,
)


def load_checkpoint(folder: Path, training: Training) -> Manifest:
    """Fill model, optimizer and random generators from a checkpoint. Called by every rank.

    On the layout that saved it the state is bit for bit the same, which is proved by its hashes;
    on another layout the random generators stay as they are.
    Raises: DataError, naming the file, when the folder is not what its manifest says.
    """
    manifest = _checked_manifest(folder)
    if training.optimizer is not None:
        fill_optimizer_state(training.optimizer)
    state = dist_checkpointing.load(sharded_state(training, loading=True), str(folder))
    for name, chunk in chunk_names(training.chunks):
        unwrap(chunk).load_state_dict(state[name], strict=True)
    if training.optimizer is not None:
        with torch.no_grad():
            training.optimizer.load_state_dict(state["optimizer"])
        mend_optimizer_after_load(training.optimizer)
    if training.optimizer is not None and manifest.layout == training.layout:
        _prove(folder, manifest, training)
    return manifest


def _checked_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint whose every file was hashed by one rank."""
    rank, world = dist.get_rank(), dist.get_world_size()
    manifest, fault = None, ""
    try:
        manifest = read_manifest(folder)
        fault = check_files(folder, manifest, part=rank, parts=world)
    except DataError as error:
        fault = str(error)
    faults = [text for text in gather(fault) if text]
    if faults or manifest is None:
        raise DataError(faults[0])
    return manifest


def _prove(folder: Path, manifest: Manifest, training: Training) -> None:
    """Put back the random generators; compare every rank's state with the hash that was saved."""
    rank = dist.get_rank()
    set_random_state(torch.load(folder / RANDOM, weights_only=True)[rank])
    found = fingerprint(training)
    wrong = [r for r, same in enumerate(gather(found == manifest.fingerprints[rank])) if not same]
    if wrong:
        raise DataError(f"{folder}: the state loaded by rank {wrong[0]} is not the one it saved")
