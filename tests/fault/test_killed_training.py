"""Training through the job layer that is killed, or told to stop, equals training undisturbed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.testing import assert_close

from megatron_jobs.checkpoint.manifest import Manifest, find_checkpoint, read_manifest
from megatron_jobs.cli import main
from megatron_jobs.errors import EXIT_STOPPED, EXIT_USER, Stopped
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.local import JobFailed, run_plan
from megatron_jobs.jobs.plan import Job, Plan, load_plan
from megatron_jobs.runtime.files import read_json, wait_for
from megatron_jobs.runtime.journal import read_journal

ROOT = Path(__file__).parents[2]
BOOKS = ROOT / "megatron_jobs" / "plans" / "books.jsonl"
STEPS = 20
SAVE_EVERY = 5
CHAIN = f"""
jobs:
  tokenizer: {{stage: tokenizer, input: [./text.jsonl], vocab_size: 512}}
  tokenize: {{stage: tokenize, input: [./text.jsonl], tokenizer: "@tokenizer/tokenizer"}}
  index:
    stage: index
    tokens: [{{path: "@tokenize/tokens"}}]
    split: 90,10
    seq_len: 64
    train_samples: {STEPS * 16}
  pretrain:
    stage: pretrain
    resources: {{ranks: 2}}
    index: "@index/index"
    model: {{layers: 2, hidden: 64, heads: 4, ffn: 128, vocab_size: 512, seq_len: 64}}
    mesh: {{tensor: 2, sequence_parallel: true}}
    batch: {{global_size: 16, micro_size: 4}}
    optim: {{lr: 3e-3, min_lr: 3e-4, warmup_steps: 4}}
    precision: fp32
    steps: {STEPS}
    evaluate_every: 4
    evaluate_batches: 1
    save_every: {SAVE_EVERY}
"""
WATCHED = ("step", "kind", "loss", "gradient_norm", "learning_rate", "tokens", "skipped")
"""What a record says of the training, not of its speed."""


def look_away(job: Job, state: str, record: dict[str, Any] | None) -> None:
    """Watch nothing."""


def records(folder: Path) -> list[dict[str, Any]]:
    found = read_journal(folder / "metrics.jsonl")
    return [{name: r[name] for name in WATCHED if name in r} for r in found]


def last_step(folder: Path) -> int:
    found = records(folder)
    return int(found[-1]["step"]) if found else 0


def final(folder: Path) -> Manifest:
    return read_manifest(find_checkpoint(folder / "checkpoints"))


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of a curve in TensorBoard, in the order of writing."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


@pytest.fixture(scope="module", autouse=True)
def _the_package_is_found() -> Iterator[None]:
    """By the processes of the jobs too, installed or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the whole chain, from text to a trained model."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with BOOKS.open(encoding="utf-8") as lines:
        (folder / "text.jsonl").write_text("".join(islice(lines, 12)), encoding="utf-8")
    (folder / "plan.yaml").write_text(CHAIN)
    plan = load_plan(str(folder / "plan.yaml"), [], folder / "run")
    run_plan(plan, look_away)
    return plan.run


def plan_like(undisturbed: Path, run: Path, *words: str) -> Plan:
    """The same training in another run folder; the work of the other jobs is copied."""
    for name in ("tokenizer", "tokenize", "index"):
        if not (run / name).exists():
            shutil.copytree(undisturbed / name, run / name)
    return load_plan(str(undisturbed.parent / "plan.yaml"), list(words), run)


def process_that_writes(log: Path) -> int:
    """The id of the process whose output goes to a file."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "fd" / "1") == str(log):
                return int(path.name)
        except OSError:  # it ended, or is another's
            continue
    raise AssertionError(f"no process writes {log}")


@contextmanager
def when_at(folder: Path, step: int, act: Callable[[], None]) -> Iterator[None]:
    """Do `act` as soon as a training logged `step`; it fails the test when that never happened."""
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            wait_for(lambda: last_step(folder) >= step, f"step {step}", seconds=60, every=0.002)
            act()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        assert not errors, errors


def kill_at_13(plan: Plan, victim: int) -> int:
    """Kill a rank after step 13; it is named within seconds. The step that was saved last."""
    folder = plan.jobs["pretrain"].folder
    killed = [0.0]

    def kill() -> None:
        os.kill(process_that_writes(folder.log(victim)), signal.SIGKILL)
        killed[0] = time.monotonic()

    named = rf"^pretrain: rank {victim} was killed by SIGKILL; its log: "
    with when_at(folder.path, 13, kill), pytest.raises(JobFailed, match=named):
        run_plan(plan, look_away)
    assert time.monotonic() - killed[0] < 8
    assert not folder.receipt.exists()
    assert last_step(folder.path) < STEPS
    assert_no_process_is_left(folder)
    return final(folder.path).step


def test_a_killed_leader_is_named_and_the_training_goes_on(
    undisturbed: Path, tmp_path: Path
) -> None:
    plan = plan_like(undisturbed, tmp_path / "run")
    folder = plan.jobs["pretrain"].folder
    saved = kill_at_13(plan, 0)
    assert saved in (10, 15)
    run_plan(plan, look_away)
    assert f"resumed from {folder.path}/checkpoints/step-{saved:08}" in folder.log(0).read_text()
    assert_equals_undisturbed(folder.path, undisturbed / "pretrain")


def assert_no_process_is_left(folder: JobFolder) -> None:
    for log in (folder.log(0), folder.log(1), folder.logs / "launch.log"):
        with pytest.raises(AssertionError, match="no process writes"):
            process_that_writes(log)


def assert_equals_undisturbed(folder: Path, other: Path) -> None:
    """Every loss, no gap, nothing twice; the state at the end, bit for bit."""
    assert records(folder) == records(other)
    steps = [r["step"] for r in records(folder) if r["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))
    assert final(folder).step == STEPS
    assert final(folder).fingerprints == final(other).fingerprints
    for tag in ("train/loss", "validation/loss"):
        assert scalars(folder, tag) == scalars(other, tag)
    numbers, others = (read_json(f / "receipt.json")["numbers"] for f in (folder, other))
    assert {**numbers, "tokens_per_second": 0} == {**others, "tokens_per_second": 0}


def test_told_to_stop_it_saves_at_once_and_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    """By TERM to `mj run` itself, then by USR2 to the process that holds the ranks."""
    plan = plan_like(undisturbed, tmp_path / "run")
    folder = plan.jobs["pretrain"].folder
    command = [sys.executable, "-m", "megatron_jobs.cli", "run", plan.shown, "--run", str(plan.run)]
    mj = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    with when_at(folder.path, 6, mj.terminate):
        _, words = mj.communicate(timeout=60)
    assert (mj.returncode, words.strip()) == (
        EXIT_STOPPED,
        "mj run: pretrain: stopped and saved; run it again to go on",
    )
    first = last_step(folder.path)
    assert 6 <= first < 13
    assert final(folder.path).step == first

    def stop() -> None:
        os.kill(process_that_writes(folder.logs / "launch.log"), signal.SIGUSR2)

    with when_at(folder.path, 13, stop), pytest.raises(Stopped, match="stopped and saved"):
        run_plan(plan, look_away)
    second = last_step(folder.path)
    assert 13 <= second < STEPS
    assert final(folder.path).step == second
    assert f"stopped: after step {second}, state saved" in folder.log(0).read_text()
    assert_no_process_is_left(folder)
    run_plan(plan, look_away)
    assert_equals_undisturbed(folder.path, undisturbed / "pretrain")


def test_a_vocabulary_over_the_embedding_is_said_in_plain_words(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = yaml.safe_load(CHAIN)["jobs"]["pretrain"] | {"index": str(undisturbed / "index/index")}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(job))
    words = ["run", str(tmp_path / "plan.yaml"), "--run", str(tmp_path / "run")]
    assert main([*words, "model.vocab_size=300"]) == EXIT_USER
    assert capsys.readouterr().err == (
        "mj run: pretrain: model.vocab_size: 300 is below the tokenizer's 512 tokens; "
        "give at least 512\n"
    )


def test_after_a_kill_it_goes_on_in_another_layout(undisturbed: Path, tmp_path: Path) -> None:
    """More than half the way on tensor ranks, the rest on pipeline ranks, in the same folder."""
    plan = plan_like(undisturbed, tmp_path / "run")
    folder = plan.jobs["pretrain"].folder
    saved = kill_at_13(plan, 1)
    words = ["mesh.tensor=1", "mesh.sequence_parallel=false", "mesh.pipeline=2"]
    words += ["batch.micro_size=2", "save_every=17", "keep=0"]
    other = plan_like(undisturbed, plan.run, *(f"pretrain.{word}" for word in words))
    run_plan(other, look_away)
    assert not (plan.run / ".replaced").exists()
    assert records(folder.path)[:saved] == records(undisturbed / "pretrain")[:saved]
    found, wanted = (
        [r["loss"] for r in records(f)] for f in (folder.path, undisturbed / "pretrain")
    )
    assert found != wanted
    assert_close(found, wanted, rtol=0, atol=1e-5)
    steps = sorted(path.name for path in (folder.path / "checkpoints").glob("step-*"))
    assert steps[-2:] == ["step-00000017", "step-00000020"]
    seen: list[tuple[str, str]] = []
    run_plan(plan, lambda job, state, record: seen.append((job.name, state)))
    assert seen[-1] == ("pretrain", "skipped"), "the receipt holds for the first layout too"
