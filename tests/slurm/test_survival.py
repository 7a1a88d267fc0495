"""Training on four nodes survives what clusters do, its loss curve bit for bit that of calm.

What happens here really happens: time limits run out, jobs are preempted, processes are killed.
Nodes 5 and 6 are those that are broken; the job that waits for its time limit runs on the others.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.errors import MegatronJobsError
from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.events import Event, read_events
from megatron_jobs.jobs.local import run_plan
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import wait_for
from megatron_jobs.runtime.journal import read_journal

ROOT = Path(__file__).parents[2]
BOOKS = ROOT / "megatron_jobs" / "plans" / "books.jsonl"
STEPS = 16
SAVE_EVERY = 3
DATA = f"""
tokenizer: {{stage: tokenizer, input: ["{BOOKS}"], vocab_size: 512}}
tokenize: {{stage: tokenize, input: ["{BOOKS}"], tokenizer: "@tokenizer/tokenizer"}}
index:
  stage: index
  tokens: [{{path: "@tokenize/tokens"}}]
  seq_len: 64
  train_samples: {STEPS * 8}
  valid_samples: 8
"""
TRAINING = f"""
resources: {{nodes: 4, ranks: 1, hours: 0.2}}
model: {{preset: llama-tiny}}
mesh: {{tensor: 2}}
batch: {{global_size: 8, micro_size: 2}}
optim: {{lr: 3e-3, min_lr: 3e-4, warmup_steps: 4}}
precision: fp32
steps: {STEPS}
evaluate_every: {STEPS}
save_every: {SAVE_EVERY}
"""
BREAKABLE = ("node5", "node6")
NODE = str(ROOT / "slurm" / "devcluster" / "node")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_slurm")]
Curve = list[tuple[str, int, float, float | None]]


@dataclass(frozen=True)
class Training:
    """One training on the cluster."""

    plan: Plan
    slurm_id: str

    @property
    def events(self) -> list[Event]:
        return read_events(self.plan.jobs["pretrain"].folder)

    @property
    def curve(self) -> Curve:
        return curve_of(self.plan)

    @property
    def state(self) -> str:
        return str(plan_status(self.plan.run)[-1]["state"])

    def names(self) -> list[str]:
        return [event["event"] for event in self.events]

    def nodes(self) -> list[str]:
        """Those of the last start."""
        return list([event for event in self.events if event["event"] == "start"][-1]["nodes"])

    def await_steps(self, count: int) -> None:
        self.wait(lambda: len(self.curve) >= count, f"step {count}", 300)

    def await_end(self, seconds: float = 400) -> None:
        self.wait(lambda: self.state not in ("waiting", "running"), "the end", seconds)

    def wait(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        try:
            wait_for(holds, what, seconds=seconds, every=0.2)
        except MegatronJobsError as error:
            log = self.plan.jobs["pretrain"].folder.logs / "batch.log"
            words = log.read_text()[-3000:] if log.exists() else plan_status(self.plan.run)
            raise AssertionError(f"{error}: {self.names()}\n{words}") from error


def curve_of(plan: Plan) -> Curve:
    records = read_journal(plan.jobs["pretrain"].folder.path / "metrics.jsonl")
    return [(r["kind"], r["step"], r["loss"], r.get("gradient_norm")) for r in records]


def plan_of(folder: Path, jobs: dict[str, Any]) -> Plan:
    folder.mkdir(exist_ok=True)
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": jobs}))
    return load_plan(str(path), [], folder / "run")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The data, and the training on this machine to which nothing happens: four ranks as well."""
    jobs = yaml.safe_load(DATA)
    jobs["pretrain"] = {"stage": "pretrain", "index": "@index/index"} | yaml.safe_load(TRAINING)
    plan = plan_of(tmp_path_factory.mktemp("calm"), jobs)
    run_plan(plan)
    return plan


def begin(calm: Plan, folder: Path, *, job: dict[str, Any], **changes: Any) -> Training:
    index = str(calm.jobs["index"].folder.path / "index")
    entry = {"stage": "tests.stages.paced", "index": index} | yaml.safe_load(TRAINING) | job
    plan = plan_of(folder, {"pretrain": entry})
    known = load_cluster("devcluster")
    quick = {"preflight": {"nodes": False, "links": False}}
    cluster = type(known).model_validate(known.model_dump() | quick | changes)
    return Training(plan, dict(submit_plan(plan, cluster, dry_run=False))["pretrain"])


@pytest.fixture(scope="module")
def limited(calm: Plan, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A training whose time limit is too short, begun early: it spends its life waiting."""
    job = {"pause": 5, "slow_starts": 2, "slow_steps": 6}
    job["resources"] = {"nodes": 4, "ranks": 1, "hours": 2 / 60}
    away = {"exclude": ",".join(BREAKABLE)}
    return begin(calm, tmp_path_factory.mktemp("limited"), job=job, sbatch=away)


@pytest.fixture
def training(calm: Plan, limited: Training, tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Begins a training that in its first start waits, half way, for what is to happen to it; at
    least two nodes of which may be broken."""
    begun: list[Training] = []

    def start(**changes: Any) -> Training:
        away = {"sbatch": {"exclude": "node1,node2"}}
        job = {"slow_steps": STEPS // 2, "until": str(tmp_path / "go on")}
        begun.append(begin(calm, tmp_path, job=job, **away | changes))
        return begun[0]

    yield start
    subprocess.run(["scancel", *(one.slurm_id for one in begun)], check=True)


def call(*words: str) -> str:
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)  # stderr is shown
    return done.stdout.strip()


def check_end(training: Training, calm: Plan, *states: str) -> None:
    """It is done, under its first id, and equals the training to which nothing happened."""
    training.await_end()
    assert training.state == "done", plan_status(training.plan.run)
    assert training.curve == curve_of(calm)
    assert [step for _, step, _, _ in training.curve] == [*range(1, STEPS + 1), STEPS]
    receipt = read_receipt(training.plan.jobs["pretrain"].folder)
    assert receipt is not None
    assert receipt["slurm_job_ids"] == [training.slurm_id]
    assert receipt["starts"] == len(states)
    sacct = ("sacct", "-DXnP", "-o", "State", "-j", training.slurm_id)
    told = lambda: call(*sacct).splitlines()  # noqa: E731
    training.wait(lambda: told() == list(states), f"{states}, not {told()}", 60)


def test_a_preempted_training(training: Callable[..., Training], calm: Plan) -> None:
    preempted = training(partition="low")
    preempted.await_steps(4)
    stronger = ("-p", "main", "-n", "16", "-N", "1", "-w", "node6", "-o", "/dev/null")
    call("sbatch", *stronger, "--wrap", "sleep 1")
    check_end(preempted, calm, "REQUEUED", "COMPLETED")
    assert preempted.names() == ["submit", "start", "stopped", "again", "start", "end"]


def test_a_node_that_dies(training: Callable[..., Training], calm: Plan) -> None:
    bereft = training(sbatch={"exclude": "node1"})
    bereft.await_steps(4)
    node = next(name for name in bereft.nodes()[1:] if name in BREAKABLE)
    try:
        call(NODE, "kill", node)
        (bereft.plan.run.parent / "go on").touch()  # into a step that cannot be taken
        check_end(bereft, calm, "NODE_FAIL", "COMPLETED")
        assert node not in bereft.nodes()
    finally:
        call(NODE, "start", node)
    assert bereft.names() == ["submit", "start", "lost", "start", "end"]
    assert bereft.events[2]["node"] == node


def test_a_rank_that_is_killed(training: Callable[..., Training], calm: Plan) -> None:
    bereft = training()
    bereft.await_steps(4)
    os.kill(rank_of(bereft.slurm_id, 3), signal.SIGKILL)
    check_end(bereft, calm, "REQUEUED", "COMPLETED")
    failed = bereft.events[2]
    assert (failed["event"], failed["rank"], failed["decision"]) == ("failed", 3, "requeue")


def rank_of(slurm_id: str, rank: int) -> int:
    """The process of a rank."""
    wanted = {f"SLURM_JOB_ID={slurm_id}", f"SLURM_PROCID={rank}"}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            found = wanted <= set((folder / "environ").read_text().split("\0"))
        except OSError:  # it has ended
            continue
        if found and "megatron_jobs.enter" in words and "--watch" not in words:
            return int(folder.name)
    raise AssertionError(f"no process of rank {rank}")


def test_a_node_that_is_drained(training: Callable[..., Training], calm: Plan) -> None:
    drained = training(sbatch={"exclude": "node1"}, watch={"drain_seconds": 1})
    drained.await_steps(4)
    node = next(name for name in drained.nodes() if name in BREAKABLE)
    call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    try:
        check_end(drained, calm, "REQUEUED", "COMPLETED")
        assert node not in drained.nodes()
    finally:
        call("scontrol", "update", f"nodename={node}", "state=resume")
    assert drained.names() == ["submit", "start", "drain", "stopped", "again", "start", "end"]


def test_a_time_limit_that_is_too_short_twice(limited: Training, calm: Plan) -> None:
    limited.await_end(600)
    reached = [event["reached"] for event in limited.events if event["event"] == "start"]
    count = len(reached) - 1
    assert count >= 2  # on a slow machine the starts after that are too short as well
    assert reached[0] == 0 < reached[-1] < STEPS
    assert reached == sorted(reached)
    check_end(limited, calm, *["REQUEUED"] * count, "COMPLETED")
    assert limited.names() == ["submit", *("start", "stopped", "again") * count, "start", "end"]
