"""Switches that people make in a job's folder: seen by the leader, heeded by every rank."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from megatron_jobs.config.loop import LoopConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.errors import Stopped
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.batch import MicroBatch
from megatron_jobs.train.feed import Feed
from megatron_jobs.train.loop import train
from megatron_jobs.train.step import build_engine
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks

MODEL = ModelConfig(layers=1, hidden=32, heads=2, ffn=64, vocab_size=VOCAB, seq_len=SEQ_LEN)
OPTIM = OptimConfig(lr=1e-3, min_lr=1e-4, warmup_steps=1)
CONFIG = LoopConfig(steps=5, log_every=1, evaluate_every=0, save_every=0, keep=0)
RECORD = {"samples_per_step": 4, "seq_len": SEQ_LEN}


def run(rank: Rank, folder: Path, switch: str) -> str:
    """Train; in step 2 a file of that name appears, made by somebody who is not the leader."""

    def batches(step: int) -> Iterator[MicroBatch]:
        if step == 2 and rank.index == 1:
            (folder / switch).touch()
        return micro_batches(step)

    open_groups(Mesh(), 1)
    engine = build_engine(MODEL, Mesh(), OPTIM.over(CONFIG.steps), precision="fp32", seed=1)
    torch.distributed.barrier()
    feed = Feed(train=batches, validation=micro_batches, validation_batches=0)
    try:
        return str(train(CONFIG, engine, feed, rank=rank, folder=folder, record=RECORD)["steps"])
    except Stopped as stopped:
        return str(stopped)


@pytest.mark.parametrize(
    ("switch", "ends", "saved", "stays"),
    [
        ("KILL", "after step 2, state saved", ["step-00000002"], True),
        ("SAVE", "5", ["step-00000002", "step-00000005"], False),
    ],
)
def test_a_switch(tmp_path: Path, switch: str, ends: str, saved: list[str], stays: bool) -> None:
    assert on_ranks(2, lambda rank: run(rank, tmp_path, switch)) == [ends, ends]
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == saved
    assert (tmp_path / switch).exists() is stays
