"""Killed at any point of a save, a run goes on from a checkpoint that is whole."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from megatron_jobs.checkpoint import save
from megatron_jobs.checkpoint.load import load_checkpoint
from megatron_jobs.checkpoint.manifest import check_files, latest_checkpoint, read_manifest
from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training, fingerprint
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime import files
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.loop import layout_of
from megatron_jobs.train.step import Engine, build_engine, train_step
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks, ranks

MODEL = ModelConfig(layers=1, hidden=32, heads=2, ffn=64, vocab_size=VOCAB, seq_len=SEQ_LEN)
OPTIM = OptimConfig(lr=1e-3, min_lr=1e-4, decay_steps=10)
PLACES = {
    "_make_room": 1,
    "_write": 1,
    "describe_files": 1,
    "write_manifest": 1,
    "publish_folder": 1,
    "set_latest": 1,
    "remove_older": 2,
}
"""Where it is killed -> the step that is the latest then."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours sees it."""


def die(*_: Any, **__: Any) -> NoReturn:
    raise Killed


def open_training(rank: Rank) -> tuple[Engine, Training]:
    open_groups(Mesh(), seed=1)
    engine = build_engine(MODEL, Mesh(), OPTIM, precision="fp32", seed=3)
    return engine, Training(engine.chunks, engine.optimizer, layout_of(engine, rank))


def test_the_latest_is_whole_wherever_a_save_was_killed(tmp_path: Path) -> None:
    def life(rank: Rank) -> None:
        engine, training = open_training(rank)
        for place, latest in PLACES.items():
            root = tmp_path / place
            states = save_one_of_two(root, place, engine, training)
            found = latest_checkpoint(root)
            assert found is not None
            assert check_files(found, read_manifest(found)) == ""
            assert read_manifest(found).step == latest, place
            load_checkpoint(found, training)
            assert fingerprint(training) == states[latest]
            save_checkpoint(root, 2, training, {}, keep=1)
            names = {path.name for path in root.iterdir()}
            assert names == {"latest", "step-00000002"}, "what was left is swept up"

    on_ranks(1, life)


def save_one_of_two(root: Path, place: str, engine: Engine, training: Training) -> dict[int, str]:
    """Train and save step 1, then step 2 until it is killed at a place; the state after each."""
    train_step(engine, micro_batches(1), 1)
    states = {1: fingerprint(training)}
    save_checkpoint(root, 1, training, {})
    train_step(engine, micro_batches(2), 2)
    states[2] = fingerprint(training)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(save, place, die)
        save_checkpoint(root, 2, training, {})
    return states


@ranks(1)
def test_all_is_on_the_disk_before_it_is_seen(rank: Rank, tmp_path: Path) -> None:
    """Every file is synced, then the folder renamed, then its parent synced, then `latest`."""
    done: list[tuple[str, str]] = []
    sync, rename, replace = files.sync, os.rename, os.replace

    def noting(what: str, work: Callable[..., None]) -> Callable[..., None]:
        def noted(*paths: Path) -> None:
            done.append((what, Path(paths[-1]).name))
            work(*paths)

        return noted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "sync", noting("sync", sync))
        patch.setattr(os, "rename", noting("rename", rename))
        patch.setattr(os, "replace", noting("replace", replace))
        _, training = open_training(rank)
        folder = save_checkpoint(tmp_path, 7, training, {})
    published = done.index(("rename", folder.name))
    before, after = done[:published], done[published + 1 :]
    assert {("sync", path.name) for path in folder.iterdir()} <= set(before)
    assert before[-1] == ("sync", "step-00000007.partial")
    assert after[0] == ("sync", tmp_path.name)
    assert after.index(("replace", "latest")) > 0
    assert after[-1] == ("sync", tmp_path.name)
