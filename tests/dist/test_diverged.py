"""A run that diverges is given up with a word, not brought to its end as if it had learned."""

import json
from pathlib import Path

import pytest

from megatron_jobs.checkpoint.manifest import latest_checkpoint
from megatron_jobs.config.loop import LoopConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.errors import UserError
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.feed import Feed
from megatron_jobs.train.loop import train
from megatron_jobs.train.step import build_engine
from tests.batches import SEQ_LEN, VOCAB, micro_batches
from tests.ranks import on_ranks

MODEL = ModelConfig(layers=2, hidden=32, heads=4, ffn=48, vocab_size=VOCAB, seq_len=SEQ_LEN)
RECORD = {"samples_per_step": 4, "seq_len": SEQ_LEN}


def run(folder: Path, lr: float, record: dict[str, int], steps: int = 40) -> list[str]:
    """What each of two ranks said at its end."""

    def work(rank: Rank) -> str:
        open_groups(Mesh(), 1)
        optim = OptimConfig(lr=lr, min_lr=lr, clip=0, schedule="constant").over(steps)
        engine = build_engine(MODEL, Mesh(), optim, precision="fp32", seed=1)
        feed = Feed(
            train=lambda step: micro_batches(step),
            validation=lambda number: iter(()),
            validation_batches=0,
        )
        config = LoopConfig(steps=steps, save_every=1, max_skips=5)
        try:
            train(config, engine, feed, rank=rank, folder=folder, record=record)
        except UserError as error:
            return str(error)
        return "done"

    return on_ranks(2, work)


def test_it_stops_after_some_refused_steps(tmp_path: Path) -> None:
    said = run(tmp_path, 1e12, RECORD)
    assert said[0] == said[1]
    assert said[0].startswith("optim: loss or gradient norm was not finite in 6 steps in a row")
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert [record["skipped"] for record in records[-5:]] == [1.0] * 5
    assert any(record["loss"] is None for record in records)


def test_other_batches_are_no_way_to_go_on(tmp_path: Path) -> None:
    assert run(tmp_path, 1e-3, RECORD, steps=2) == ["done"] * 2
    found = latest_checkpoint(tmp_path / "checkpoints")
    said = run(tmp_path, 1e-3, RECORD | {"samples_per_step": 16}, steps=4)
    assert said == [f"samples_per_step: 16, but {found} was trained with 4"] * 2
