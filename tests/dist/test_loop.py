"""The loop: a model learns, and each thing is done at its steps."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_jobs.config.batch import BatchConfig
from megatron_jobs.config.loop import LoopConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.data.build_index import IndexPlan, Source, build_sample_index
from megatron_jobs.data.sample_index import SampleIndex
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.errors import DataError, Stopped
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime import stop
from megatron_jobs.runtime.journal import read_journal
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.feed import open_feed
from megatron_jobs.train.loop import due, train
from megatron_jobs.train.step import build_engine
from tests.ranks import on_ranks, ranks

TEXT = b"the quick brown fox jumps over the lazy dog; and the lazy dog sleeps on. "
SEQ_LEN = 64
BATCH = BatchConfig(global_size=8, micro_size=4)
MODEL = ModelConfig(layers=2, hidden=64, heads=2, ffn=128, vocab_size=256, seq_len=SEQ_LEN)
OPTIM = OptimConfig(lr=1e-2, min_lr=1e-3, warmup_steps=3)
RECORD = {"samples_per_step": 8, "seq_len": SEQ_LEN}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the same sentence over and over; its letters are the tokens."""
    folder = tmp_path_factory.mktemp("data")
    ids = np.frombuffer(TEXT * 30, np.uint8)
    with write_token_file(folder / "tokens", vocab_size=256) as writer:
        for _ in range(10):
            writer.add(ids, [len(ids)])
    facts = TokenFacts.of_bare_file(folder / "tokens", documents=10, tokens=10 * len(ids))
    source = Source(folder / "tokens", TokenFile.open(folder / "tokens"), facts, None)
    (folder / "index").mkdir()
    samples = {"train": 30 * 8, "valid": 16, "test": 0}
    plan = IndexPlan(split="80,20", seq_len=SEQ_LEN, seed=1, samples=samples)
    build_sample_index(folder / "index", [source], plan)
    return folder / "index"


def run(rank: Rank, index: Path, folder: Path, config: LoopConfig) -> dict[str, float]:
    torch.distributed.barrier()
    open_groups(Mesh(), 1)
    engine = build_engine(MODEL, Mesh(), OPTIM.over(config.steps), precision="fp32", seed=1)
    feed = open_feed(SampleIndex.open(index), BATCH)
    return train(config, engine, feed, rank=rank, folder=folder, record=RECORD)


def steps_of(folder: Path, kind: str) -> list[int]:
    return [r["step"] for r in read_journal(folder / "metrics.jsonl") if r["kind"] == kind]


def saved(folder: Path) -> list[int]:
    found = (folder / "checkpoints").glob("step-*")
    return sorted(int(path.name.removeprefix("step-")) for path in found)


@ranks(1)
def test_thirty_steps_on_a_sentence_beat_a_model_of_single_letters(
    rank: Rank, index: Path, tmp_path: Path
) -> None:
    shares = [count / len(TEXT) for count in Counter(TEXT).values()]
    unigram = -sum(share * math.log(share) for share in shares)
    numbers = run(rank, index, tmp_path, LoopConfig(steps=30, evaluate_every=0))
    losses = [r["loss"] for r in read_journal(tmp_path / "metrics.jsonl") if r["kind"] == "train"]
    assert losses[0] == pytest.approx(math.log(256), abs=0.3)
    assert losses[-1] == numbers["loss"] < 0.5 * unigram
    assert numbers["validation_loss"] < 0.5 * unigram
    assert unigram < losses[0]


@ranks(1)
def test_each_thing_is_done_at_its_steps(rank: Rank, index: Path, tmp_path: Path) -> None:
    config = LoopConfig(
        steps=7, log_every=2, evaluate_every=3, evaluate_batches=1, save_every=4, keep=0
    )
    numbers = run(rank, index, tmp_path, config)
    assert steps_of(tmp_path, "train") == [2, 4, 6, 7]
    assert steps_of(tmp_path, "validation") == [3, 6, 7]
    assert saved(tmp_path) == [4, 7]
    assert set(numbers) == {"loss", "validation_loss", "tokens_per_second", "steps"}


def test_zero_leaves_out_all_but_the_last(index: Path, tmp_path: Path) -> None:
    config = LoopConfig(steps=3, log_every=0, evaluate_every=0, evaluate_batches=0, save_every=0)
    first = on_ranks(1, lambda rank: run(rank, index, tmp_path, config))[0]
    assert (steps_of(tmp_path, "train"), steps_of(tmp_path, "validation")) == ([3], [])
    assert saved(tmp_path) == [3]
    again = on_ranks(1, lambda rank: run(rank, index, tmp_path, config))[0]
    del first["tokens_per_second"]
    assert again == first, "a finished run that is run again still knows its numbers"


def test_asked_to_stop_it_saves_logs_no_more_than_due_and_goes_on(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LoopConfig(steps=6, log_every=2, evaluate_every=0, save_every=0)

    def stopped(rank: Rank) -> str:
        monkeypatch.setitem(stop._state, "reason", "SIGUSR2")
        with pytest.raises(Stopped) as caught:
            run(rank, index, tmp_path, config)
        return str(caught.value)

    assert on_ranks(1, stopped) == ["after step 1, state saved"]
    assert (saved(tmp_path), steps_of(tmp_path, "train")) == ([1], [])
    on_ranks(1, lambda rank: run(rank, index, tmp_path, config))
    assert steps_of(tmp_path, "train") == [2, 4, 6]


def test_a_latest_that_names_nothing_is_refused_on_every_rank(index: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/latest").write_text("step-00000009\n")

    def refused(rank: Rank) -> str:
        with pytest.raises(DataError) as caught:
            run(rank, index, tmp_path, LoopConfig(steps=2))
        return str(caught.value)

    words = (
        f"{tmp_path}/checkpoints/latest: names 'step-00000009', which is not a whole "
        "checkpoint there"
    )
    assert on_ranks(2, refused) == [words, words]


@pytest.mark.parametrize(
    ("step", "every", "answer"),
    [(1, 1, True), (4, 2, True), (3, 2, False), (5, 0, False), (2, 5, False)],
)
def test_due(step: int, every: int, answer: bool) -> None:
    assert due(step, every) is answer
