"""A training that goes on from another's checkpoint, on the same index, the next one, or anew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from megatron_jobs.data.document_names import write_document_names
from megatron_jobs.data.sample_index import SampleIndex, index_identity
from megatron_jobs.data.token_file import write_token_file
from megatron_jobs.jobs.traces import documents_of_step, trace_documents
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.journal import read_journal
from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.runtime.rank import ALONE, Rank
from megatron_jobs.stages import index as index_stage
from megatron_jobs.stages import pretrain
from megatron_jobs.train import feed, loop, plot

VOCAB, SIZE, LENGTH = 2000, 4, 10
DOCUMENTS = 100
STARTS = {"a": 0, "b": 1000}
"""The first token of each source; all tokens are different ones."""
MODEL = {"layers": 1, "hidden": 8, "heads": 2, "ffn": 16, "vocab_size": VOCAB, "seq_len": 8}
assert loop, "imported once, not by every rank"


@dataclass(frozen=True)
class Run:
    """A run folder with a first training, of 6 steps on source a."""

    folder: Path

    def index(self, name: str, weights: dict[str, float], **given: Any) -> Path:
        """Build an index of some sources; its folder."""
        config = index_stage.Config(
            tokens=[{"path": self.folder / f"{n}.bin", "weight": w} for n, w in weights.items()],  # type: ignore[arg-type]
            **{"split": "1", "seq_len": 8, "train_samples": 60, "valid_samples": 0} | given,
        )
        (self.folder / name).mkdir()
        index_stage.run(config, ALONE, self.folder / name)
        return self.folder / name / "index"

    def train(self, name: str, index: Path, steps: int, **given: Any) -> list[int]:
        """Run a training to a step, or go on with it; the first token of each sample it read."""
        job = self.folder / name
        settings = {"index": index, "steps": steps, "model": MODEL, "precision": "fp32"}
        settings |= {"batch": {"global_size": SIZE, "micro_size": SIZE}, "save_every": 3, "keep": 0}
        settings |= {"optim": {"lr": 1e-2, "decay_steps": 100}} | given
        config = pretrain.Config(**settings)  # type: ignore[arg-type]
        job.mkdir(exist_ok=True)
        told = {"stage": "pretrain", "after": [], "resources": {}, **config.model_dump(mode="json")}
        (job / "config.yaml").write_text(yaml.safe_dump(told))
        (job / "read.txt").unlink(missing_ok=True)

        def work(rank: Rank) -> None:
            torch.set_num_threads(1)
            note_what_is_read(job / "read.txt")
            plot.plot_losses = lambda _: True  # a second each, and looked at by nobody
            pretrain.run(config, rank, job)

        done = fork_ranks(work, 1, error_file=lambda _: job / "error.txt")
        assert done.status == 0, (job / "error.txt").read_text()
        return [int(token) for token in (job / "read.txt").read_text().split()]

    def losses(self, name: str) -> dict[int, float]:
        """By step."""
        records = read_journal(self.folder / name / "metrics.jsonl")
        return {one["step"]: one["loss"] for one in records if one["kind"] == "train"}


def note_what_is_read(file: Path) -> None:
    """From now on in this process."""
    real = feed.read_batch

    def noting(*words: Any, **named: Any) -> Any:
        batch = real(*words, **named)
        with file.open("a") as out:
            print(*batch["tokens"][:, 0].tolist(), file=out)
        return batch

    feed.read_batch = noting


def firsts(index: Path, samples: range) -> list[int]:
    """The first token of some train samples."""
    train = SampleIndex.open(index).split("train")
    return [int(train[sample][0]) for sample in samples]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    for name, first in STARTS.items():
        ids = np.arange(first, first + DOCUMENTS * LENGTH)
        with write_token_file(folder / name, vocab_size=VOCAB) as tokens:
            tokens.add(ids, [LENGTH] * DOCUMENTS)
        with write_document_names(folder / name) as names:
            names.add_names([f"{name}{number}" for number in range(DOCUMENTS)])
    run = Run(folder)
    index = run.index("mix1", {"a": 1})
    assert run.train("first", index, 6) == firsts(index, range(24))
    return run


def test_another_mix_goes_on_behind_what_was_read(run: Run) -> None:
    """Also after a kill: what was read by then is noted in the checkpoints of its own."""
    one = run.folder / "mix1/index"
    two = run.index("mix2", {"a": 3, "b": 1}, earlier=one, earlier_samples=24)
    load = run.folder / "first/checkpoints"
    read = run.train("second", two, 9, load=load)
    assert read_json(run.folder / "second/loaded.json") == {
        "checkpoint": str(load / "step-00000006"), "step": 6, "index_step": 6
    }  # fmt: skip
    read += run.train("second", two, 12, load=load)
    assert read == firsts(two, range(24))
    whole = firsts(one, range(24)) + read
    assert len(set(whole)) == len(whole) == 48
    assert {token >= STARTS["b"] for token in read} == {False, True}
    assert list(run.losses("second")) == list(range(7, 13))
    noted = read_json(run.folder / "second/checkpoints/step-00000012/manifest.json")
    wanted = {"identity": index_identity(SampleIndex.open(two).facts), "step": 6}
    assert noted["record"]["index"] == wanted
    for step in (7, 12):
        rows = documents_of_step(run.folder, step, "second")
        tokens = read[(step - 7) * SIZE : (step - 6) * SIZE]
        assert {row[0] for row in rows} == set(range((step - 7) * SIZE, (step - 6) * SIZE))
        assert {name_of(token) for token in tokens} <= {row[2] for row in rows}
    (found,) = trace_documents(run.folder, [name_of(whole[0])]).traces
    assert found.steps["first"][0] == 1
    assert [Path(path).name for path in found.checkpoints["second"]] == [
        "step-00000009", "step-00000012"
    ]  # fmt: skip
    (found,) = trace_documents(run.folder, [name_of(read[0])]).traces
    assert found.steps["second"][0] == 7


def name_of(token: int) -> str:
    source = "b" if token >= STARTS["b"] else "a"
    return f"{source}{(token - STARTS[source]) // LENGTH}"


def test_the_same_index_goes_on_where_it_was_left(run: Run) -> None:
    index = run.folder / "mix1/index"
    read = run.train("longer", index, 8, load=run.folder / "first/checkpoints/step-00000003")
    assert read == firsts(index, range(12, 32))
    assert run.losses("longer")[4] == run.losses("first")[4]
    assert run.losses("longer")[6] == run.losses("first")[6]


def test_finetune_takes_weights_alone(run: Run) -> None:
    """Step 1 is on the samples, and with the weights, of step 4 of the first training."""
    load = run.folder / "first/checkpoints/step-00000003"
    behind = run.index("rest", {"a": 1}, earlier=run.folder / "mix1/index", earlier_samples=12)
    assert firsts(behind, range(4)) == firsts(run.folder / "mix1/index", range(12, 16))
    read = run.train("tuned", behind, 3, load=load, finetune=True)
    assert read == firsts(behind, range(12))
    assert run.losses("tuned")[1] == run.losses("first")[4]
    assert run.losses("tuned")[2] != run.losses("first")[5]  # the optimizer is another one
    assert read_json(run.folder / "tuned/loaded.json") == {
        "checkpoint": str(load), "step": 0, "index_step": 0
    }  # fmt: skip
    index = read_json(run.folder / "tuned/checkpoints/step-00000003/manifest.json")["record"]
    assert index["index"]["step"] == 0


def test_an_index_that_was_not_built_for_it_is_refused(run: Run) -> None:
    """What would read samples twice ends with its sentence, before anything is trained."""
    other = run.index("mix3", {"a": 1, "b": 1})
    with pytest.raises(AssertionError) as told:
        run.train("refused", other, 12, load=run.folder / "first/checkpoints")
    assert "index: begins at its first sample, but" in str(told.value)
    behind = run.index("mix4", {"a": 1}, earlier=other, earlier_samples=4)
    with pytest.raises(AssertionError) as told:
        run.train("fresh", behind, 6)
    assert "index: it goes on behind 4 samples of an earlier one" in str(told.value)
    assert not (run.folder / "refused/checkpoints").exists()
