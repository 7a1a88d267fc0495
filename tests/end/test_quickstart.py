"""The shipped quickstart, a few steps of it, through the command line."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.journal import read_journal

ROOT = Path(__file__).parents[2]
SHORT = ["pretrain.steps=40", "pretrain.evaluate_every=20", "pretrain.optim.lr=5e-3"]


def mj(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "megatron_jobs.cli", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=cwd, check=False, timeout=300
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of the short quickstart."""
    folder = tmp_path_factory.mktemp("quickstart")
    done = mj("run", "plans/quickstart.yaml", *SHORT, "--run", "r", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "> It is a truth universally acknowledged, that" in done.stdout
    assert f"plots        {folder}/r/pretrain/loss.svg" in done.stdout
    return folder / "r"


def test_every_job_left_its_receipt(finished: Path) -> None:
    jobs = ["tokenizer", "tokenize", "index", "pretrain", "evaluate", "convert", "generate"]
    for job in jobs:
        receipt = read_json(finished / job / "receipt.json")
        assert receipt["stage"] == job
        assert receipt["outputs"]
        assert all(len(output["sha256"]) == 64 for output in receipt["outputs"].values())
    inputs = read_json(finished / "evaluate/receipt.json")["inputs"]
    outputs = read_json(finished / "pretrain/receipt.json")["outputs"]
    assert inputs["checkpoint"] == outputs["checkpoints"]["sha256"]


def test_the_loss_falls_below_that_of_counting_words(finished: Path) -> None:
    numbers = read_json(finished / "evaluate/receipt.json")["numbers"]
    assert numbers["perplexity"] < 0.9 * numbers["unigram_perplexity"]
    assert math.isclose(numbers["perplexity"], math.exp(numbers["loss"]))
    records = read_journal(finished / "pretrain/metrics.jsonl")
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert len(losses) == 40
    assert losses[-1] < losses[0] - 1.5
    assert [r["step"] for r in records if r["kind"] == "validation"] == [20, 40]
    assert list((finished / "pretrain/tensorboard").glob("events.*"))


def test_bits_per_byte_follow_from_the_text(finished: Path) -> None:
    """Against the text itself: the test split's targets, decoded."""
    from transformers import AutoTokenizer

    from megatron_jobs.data.sample_index import SampleIndex

    numbers = read_json(finished / "evaluate/receipt.json")["numbers"]
    split = SampleIndex.open(finished / "index/index").split("test")
    ids = [int(token) for i in range(len(split)) for token in split[i][1:] if token >= 0]
    assert len(ids) == numbers["tokens"]
    tokenizer = AutoTokenizer.from_pretrained(finished / "tokenizer/tokenizer")
    text = tokenizer.decode(ids, skip_special_tokens=True)
    bits = numbers["loss"] * numbers["tokens"] / math.log(2)
    assert math.isclose(numbers["bits_per_byte"], bits / len(text.encode()), rel_tol=1e-3)


def greedy_text(checkpoints: Path, prompt: list[int], tokens: int) -> list[int]:
    """What our own decoder says after a prompt."""
    from megatron_jobs.checkpoint.model import model_of, open_model
    from megatron_jobs.config.mesh import Mesh
    from megatron_jobs.config.sampling import Sampling
    from megatron_jobs.infer.generate import continue_prompt
    from megatron_jobs.parallel.groups import open_groups
    from tests.ranks import on_ranks

    def work(rank: object) -> list[int]:
        open_groups(Mesh(), 0)
        (chunk,) = open_model(checkpoints, Mesh(), "fp32")
        return continue_prompt(
            chunk, prompt, vocab_size=model_of(checkpoints).vocab_size, tokens=tokens,
            sampling=Sampling(temperature=0),
        )  # fmt: skip

    (text,) = on_ranks(1, work)
    assert isinstance(text, list)
    return text


def test_transformers_says_the_same(finished: Path) -> None:
    """The exported folder loads as it is, tokenizer included, and its loss is the one we wrote."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from megatron_jobs.data.sample_index import SampleIndex

    comparison = read_json(finished / "convert/comparison.json")
    assert comparison["max_logit_difference"] < 1e-4
    folder = finished / "convert/model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("Mr. Darcy was", return_tensors="pt").input_ids
    text = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :].tolist()
    assert text == greedy_text(finished / "pretrain/checkpoints", ids[0].tolist(), len(text))
    split = SampleIndex.open(finished / "index/index").split("test")
    rows = torch.stack([torch.from_numpy(split[i]) for i in range(8)])
    with torch.no_grad():
        loss = model(rows[:, :-1]).logits.flatten(0, 1)
    found = torch.nn.functional.cross_entropy(loss, rows[:, 1:].flatten())
    numbers = read_json(finished / "evaluate/receipt.json")["numbers"]
    assert abs(float(found) - numbers["loss"]) < 0.3


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/receipt.json")}
    done = mj("run", "plans/quickstart.yaml", *SHORT, "--run", "r", cwd=finished.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done before") == 7
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*/receipt.json")} == before
    status = mj("status", "r", cwd=finished.parent)
    assert status.returncode == 0
    jobs, _, total = status.stdout.partition("7 jobs")
    assert jobs.count(" done ") == 7
    assert total.split()[:2] == ["7", "done"]


def test_continuations_are_kept(finished: Path) -> None:
    lines = (finished / "generate/continuations.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 3
    assert all(record["text"].startswith(record["prompt"]) for record in records)
    assert all(1 <= record["tokens"] <= 60 for record in records)


def test_another_tokenizer_is_refused(finished: Path, tmp_path: Path) -> None:
    """Its bits per byte would be of another text."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"""
        stage: evaluate
        checkpoint: {finished}/pretrain/checkpoints
        index: {finished}/index/index
        tokenizer: {tmp_path}/tokenizer
        """
    )
    shutil.copytree(finished / "tokenizer/tokenizer", tmp_path / "tokenizer")
    file = tmp_path / "tokenizer/tokenizer.json"
    file.write_text(file.read_text() + "\n")
    done = mj("run", str(plan), "--run", "r", cwd=tmp_path)
    assert done.returncode == 2
    assert "was made with another one" in done.stderr


def test_nothing_is_generated_with_another_tokenizer(finished: Path, tmp_path: Path) -> None:
    from megatron_jobs.errors import UserError
    from megatron_jobs.runtime.rank import ALONE
    from megatron_jobs.stages.generate import Config, run

    ours = finished / "tokenizer/tokenizer/tokenizer.json"
    other = tmp_path / "tokenizer.json"
    other.write_bytes(ours.read_bytes() + b"\n")
    config = Config(checkpoint=finished / "pretrain/checkpoints", tokenizer=other, prompts=["It"])
    with pytest.raises(UserError, match=r"step-00000040 was made with another one, .*; give that"):
        run(config, ALONE, tmp_path)
