"""A disk that is full, or cannot be written, during a save: on a real small file system."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch.distributed as dist

from megatron_jobs.checkpoint import save
from megatron_jobs.checkpoint.load import load_checkpoint
from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training, fingerprint
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.errors import UserError
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.loop import layout_of
from megatron_jobs.train.step import build_engine, train_step
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.fault.conftest import ROOM
from tests.ranks import on_ranks

MODEL = ModelConfig(layers=2, hidden=64, heads=4, ffn=128, vocab_size=VOCAB, seq_len=SEQ_LEN)
OPTIM = OptimConfig(lr=1e-3, min_lr=1e-4, decay_steps=10)
PAGE = 4096
"""What tmpfs deals out at a time."""
LATEST = "the latest checkpoint is step-00000001"
FILES = ("tensors", ".metadata", "metadata.json", "random.pt", "manifest.json", "latest")
"""In the order in which they are written."""


Work = Callable[[Rank, Training, Path], list[str]]


def after_a_save(root: Path, work: Work) -> list[str]:
    """What `work` returns after step 1 was saved; that checkpoint must still be whole then."""

    def life(rank: Rank) -> list[str]:
        open_groups(Mesh(tensor=2), seed=1)
        engine = build_engine(MODEL, Mesh(tensor=2), OPTIM, precision="fp32", seed=3)
        training = Training(engine.chunks, engine.optimizer, layout_of(engine, rank))
        train_step(engine, micro_batches(1), 1)
        folder = save_checkpoint(root, 1, training, {})
        before = fingerprint(training)
        train_step(engine, micro_batches(2), 2)
        words = work(rank, training, folder)
        load_checkpoint(folder, training)
        assert fingerprint(training) == before
        return words

    first, second = on_ranks(2, life)
    assert first == second
    return list(first)


def refused(root: Path, training: Training) -> str:
    """The words of a save that fails and leaves nothing half."""
    with pytest.raises(UserError) as caught:
        save_checkpoint(root, 2, training, {})
    assert {path.name for path in root.iterdir()} == {"latest", "step-00000001"}
    assert (root / "latest").read_text() == "step-00000001\n"
    return str(caught.value)


def fill(rank: Rank, disk: Path, left: int) -> None:
    """Leave `left` bytes free."""
    dist.barrier()
    if rank.leads:
        (disk / "other").unlink(missing_ok=True)
        with (disk / "other").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left)
    dist.barrier()


def pages(path: Path) -> int:
    """Bytes that a file takes on the disk."""
    return -(-path.stat().st_size // PAGE) * PAGE


def room_for(folder: Path, files: Sequence[str]) -> int:
    """Bytes that some of a checkpoint's files take; `tensors` are several."""
    found = [p for f in files for p in folder.glob("*.distcp" if f == "tensors" else f)]
    return sum(map(pages, found))


def test_too_little_room_is_seen_beforehand(disk: Path) -> None:
    root = disk / "checkpoints"

    def work(rank: Rank, training: Training, folder: Path) -> list[str]:
        fill(rank, disk, 1 << 20)
        return [refused(root, training)]

    (words,) = after_a_save(root, work)
    beginning = f"{root / 'step-00000002'}: could not be saved: the disk is full: "
    asked, _, rest = words.removeprefix(beginning).partition(" bytes are needed, ")
    assert int(asked.replace(",", "")) == pytest.approx(16 * MODEL.parameters(), rel=0.01)
    assert rest == f"1,048,576 are free; {LATEST}"


def test_a_disk_that_gets_full_at_any_file(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may write too: there was room before, and there is none now."""
    root = disk / "checkpoints"
    monkeypatch.setattr(save, "_make_room", lambda part, needed: part.mkdir(parents=True))

    def work(rank: Rank, training: Training, folder: Path) -> list[str]:
        words = []
        for place in range(len(FILES)):
            left = room_for(folder, FILES[:place]) if place else room_for(folder, FILES[:1]) - PAGE
            fill(rank, disk, left)
            words.append(refused(root, training))
        return words

    assert after_a_save(root, work) == [
        f"{root / 'step-00000002'}: could not be saved: the disk is full: "
        f"No space left on device; {LATEST}"
    ] * len(FILES)


def test_a_folder_that_cannot_be_written(disk: Path) -> None:
    root = disk / "checkpoints"

    def work(rank: Rank, training: Training, folder: Path) -> list[str]:
        remount(rank, disk, "ro")
        words = refused(root, training)
        remount(rank, disk, "rw")
        return [words]

    assert after_a_save(root, work) == [
        f"{root / 'step-00000002'}: could not be saved: Read-only file system; {LATEST}"
    ]


def remount(rank: Rank, disk: Path, how: str) -> None:
    dist.barrier()
    if rank.leads:
        subprocess.run(["mount", "-o", f"remount,{how},size={ROOM}", str(disk)], check=True)
    dist.barrier()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    root.write_text("not a folder")

    def life(rank: Rank) -> str:
        open_groups(Mesh(), seed=1)
        engine = build_engine(MODEL, Mesh(), OPTIM, precision="fp32", seed=3)
        training = Training(engine.chunks, engine.optimizer, layout_of(engine, rank))
        with pytest.raises(UserError) as caught:
            save_checkpoint(root, 2, training, {})
        return str(caught.value)

    words = f"{root / 'step-00000002'}: could not be saved: Not a directory; there is no checkpoint"
    assert on_ranks(2, life) == [words, words]
    assert root.read_text() == "not a folder"
