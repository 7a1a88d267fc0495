"""Which of all that ranks and Slurm say is the first real cause, and what is decided."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.errors import EXIT_UNFIT, UserError
from megatron_jobs.jobs import evidence
from megatron_jobs.jobs.local import JobFailed, run_plan
from megatron_jobs.jobs.plan import load_plan
from megatron_jobs.jobs.triage import write_postmortem
from tests.failed_job import BEGAN, ENDING, HEADER, NODES, PEER, Case, traceback_of


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_of_causes_the_earliest(case: Case) -> None:
    case.error(6, traceback_of("ValueError: later"), second=51)
    case.error(2, traceback_of("KeyError: 'first'"), second=50)
    case.error(1, traceback_of(PEER), second=30)
    verdict = case.judge()
    assert (verdict.rank, verdict.cause) == (2, "KeyError: 'first' (/home/me/train.py:12)")
    assert verdict.aftermath == {"Python error": 1, "lost connection": 1}


def test_a_raised_error_before_the_kill_of_those_that_wait(case: Case) -> None:
    """Ranks in a hung collective do not heed TERM: srun kills them after the one that raised."""
    case.error(7, traceback_of("ValueError: bad batch"))
    case.batch(f"srun: error: node4: task 7: Exited with exit code 1\n{ENDING}")
    case.batch("srun: error: node1: tasks 0-1: Killed\nsrun: error: node2: tasks 2-3: Killed\n")
    verdict = case.judge(137)
    assert (verdict.kind, verdict.rank, verdict.node) == ("Python error", 7, "node4")
    assert verdict.quotes == (("rank-00007.error", "ValueError: bad batch"),)


def test_a_kill_before_an_error_that_no_rule_knows(case: Case) -> None:
    case.error(0, traceback_of("RuntimeError: work was lost on the way"), second=50)
    case.batch(f"srun: error: node2: task 3: Killed\n{ENDING}")
    case.batch("srun: error: node1: task 0: Exited with exit code 1\n")
    verdict = case.judge(137)
    assert (verdict.kind, verdict.sentence) == ("killed", "rank 3 on node2: Killed")
    assert verdict.quotes == (("batch.log", "srun: error: node2: task 3: Killed"),)


def test_a_ranks_own_words_stand_for_the_signal_that_ended_it(case: Case) -> None:
    case.log(3, "x.cu:9: block: [4,0,0], thread: [0,0,0] Assertion `i < n` failed.")
    case.error(3, traceback_of("RuntimeError: CUDA error: unspecified launch failure"), second=52)
    case.batch(f"srun: error: node2: task 3: Segmentation fault\n{ENDING}")
    verdict = case.judge(139)
    assert (verdict.kind, verdict.rank) == ("assertion on the GPU", 3)
    assert verdict.quotes[1] == (
        "rank-00003.error",
        "RuntimeError: CUDA error: unspecified launch failure",
    )


def test_a_message_for_the_user_has_no_traceback(case: Case) -> None:
    case.error(0, "index.tokens: 3 files, but the index was made of 4; make it again")
    verdict = case.judge(2)
    assert (verdict.kind, verdict.decision) == ("settings or data", "stop")
    assert verdict.cause.startswith("index.tokens: 3 files")


def test_a_stall_comes_before_the_kill_that_it_brings(case: Case) -> None:
    line = "stalled 30 s: rank 6 on node4 is behind: step 12, in forward, step.py:9"
    case.event("stall", time=BEGAN + 20, rank=6, node="node4", state="", line=line)
    case.log(1, "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=8)", second=19)
    case.batch(f"srun: error: node1: task 0: Killed\n{ENDING}")
    verdict = case.judge(137)
    assert (verdict.kind, verdict.rank, verdict.node) == ("stall", 6, "node4")
    assert (verdict.cause, verdict.decision) == (line, "requeue")


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        ({"rank": -1, "node": "", "state": ""}, ("requeue", None, "")),
        ({"rank": 2, "node": "node2", "state": "silent"}, ("exclude", 2, "node2")),
    ],
)
def test_who_is_behind_in_a_stall(
    case: Case, facts: dict[str, Any], wanted: tuple[str, int | None, str]
) -> None:
    case.event("stall", time=BEGAN + 20, line="stalled 30 s: ...", **facts)
    verdict = case.judge(137)
    assert (verdict.decision, verdict.rank, verdict.node) == wanted


def test_one_node_is_silent(case: Case) -> None:
    """Slurm has not noticed yet; every other node lost its connection to it."""
    for rank in range(8):
        case.log(rank, "step 9\n" if rank in (4, 5) else f"step 9\n{PEER}")
    verdict = case.judge(1)
    assert (verdict.kind, verdict.decision, verdict.node) == ("node loss", "exclude", "node3")
    case.batch("srun: error: node3: task 5: Terminated\n")  # its slurmd has answered: it lives
    assert case.judge(1).kind == "lost connection"


def test_nodes_that_failed_the_preflight(case: Case) -> None:
    case.event("preflight", bad={"node2": "disk full"}, suspects={}, left_out=["node2"])
    verdict = case.judge(EXIT_UNFIT)
    assert (verdict.kind, verdict.decision, verdict.node) == ("unfit nodes", "exclude", "node2")
    assert verdict.cause == "node2: disk full"


def test_ranks_stand_on_the_nodes_that_the_preflight_left(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.folder.events.unlink()
    case.event("start", time=BEGAN, nodes=["node0", *NODES], slurm_job_id="7")
    case.event("preflight", bad={"node1": "x"}, suspects={}, left_out=["node1"])
    case.error(3, traceback_of("ValueError: x"))
    assert case.judge().node == "node2"
    case.error(2, traceback_of("RuntimeError: y"), second=45)
    assert case.judge().node == "node2"
    case.error(1, traceback_of("RuntimeError: y"), second=44)
    assert case.judge().node == "node0"


def test_before_any_rank(case: Case) -> None:
    case.batch("run.sh: line 9: /gone/python: No such file or directory\n")
    verdict = case.judge(127)
    assert (verdict.kind, verdict.decision, verdict.rank) == ("not started", "stop", None)
    assert verdict.cause == "run.sh: line 9: /gone/python: No such file or directory"
    case.batch("tokenizer.input: /data/books.jsonl is not there\n")
    assert case.judge(2).kind == "settings or data"
    case.batch(traceback_of("ImportError: libcudart.so.12: cannot open shared object file") + "\n")
    assert case.judge(1).kind == "Python error"


def test_a_rank_that_ended_without_last_words(case: Case) -> None:
    """Its imports failed, or it called exit: the traceback stands in its log alone."""
    case.log(2, "hello")
    case.batch(f"srun: error: node2: task 2: Exited with exit code 7\n{ENDING}")
    assert (case.judge(7).kind, case.judge(7).rank) == ("early end", 2)
    case.log(2, traceback_of("ModuleNotFoundError: No module named 'torch'"))
    verdict = case.judge(7)
    assert (verdict.kind, verdict.node) == ("Python error", "node2")
    assert verdict.cause == "ModuleNotFoundError: No module named 'torch' (/home/me/train.py:12)"


def test_only_the_last_start_counts(case: Case) -> None:
    """Logs and events are appended to; a log not written to since is an earlier start's."""
    case.log(1, "OSError: [Errno 28] No space left on device", second=10)
    case.log(2, "CUDA out of memory", second=10)
    case.batch("srun: error: node1: task 1: Killed\n")
    case.event("failed", kind="disk full", cause="x")
    case.batch(HEADER.format(1))
    case.event("start", time=BEGAN + 500, nodes=NODES[::-1], restart=1)
    case.log(
        2, "--- goes on: rank 2 of 8 on node3, 2026-11-21T09:00:00+00:00\nstep 4\n", second=600
    )
    case.log(0, PEER, second=600)
    verdict = case.judge()
    assert (verdict.kind, verdict.aftermath) == ("lost connection", {})
    case.batch("srun: error: node1: task 6: Killed\n")
    assert case.judge().rank == 6


def again(case: Case, **failure: Any) -> None:
    """The start before failed so; now it is the next."""
    case.event("failed", **failure)
    case.event("again", how="requeue")
    case.event("start", time=BEGAN + 2, nodes=NODES, restart=1)


def test_twice_on_the_same_node(case: Case) -> None:
    again(case, kind="crash", rank=3, node="node2")
    case.batch(f"srun: error: node2: task 3: Bus error (core dumped)\n{ENDING}")
    verdict = case.judge()
    assert (verdict.decision, verdict.node) == ("exclude", "node2")
    assert verdict.why == "it failed so on node2 twice in a row"


@pytest.mark.parametrize(
    "before",
    [{"rank": 2, "node": "node2"}, {"rank": 3, "node": "node1"}, {"kind": "killed", "rank": 3}],
)
def test_not_twice_the_same(case: Case, before: dict[str, Any]) -> None:
    again(case, **({"kind": "crash", "node": "node2"} | before))
    case.batch(f"srun: error: node2: task 3: Bus error (core dumped)\n{ENDING}")
    assert case.judge().decision == "requeue"


def test_twice_but_a_person_came_between(case: Case) -> None:
    case.event("failed", kind="crash", rank=3, node="node2")
    case.event("submit")
    case.event("start", time=BEGAN + 2, nodes=NODES, restart=1)
    case.batch(f"srun: error: node2: task 3: Bus error (core dumped)\n{ENDING}")
    assert case.judge().decision == "requeue"


def test_the_same_error_at_the_same_place_twice_is_no_accident(case: Case) -> None:
    words = traceback_of("OSError: [Errno 5] Input/output error")
    case.error(3, words)
    first = case.judge()
    assert first.decision == "requeue"
    again(case, **first.facts() | {"node": "node4"})
    verdict = case.judge()
    assert verdict.decision == "stop"
    assert verdict.why == "the same error at the same place, /home/me/train.py:12, twice in a row"


def test_a_fault_of_a_node_that_is_not_known_excludes_none(tmp_path: Path) -> None:
    case = Case(tmp_path)
    case.folder.events.unlink()
    (case.folder.logs / "batch.log").unlink()
    case.error(3, traceback_of("RuntimeError: CUDA error: uncorrectable ECC error encountered"))
    verdict = case.judge()
    assert (verdict.node, verdict.decision) == ("", "requeue")
    assert verdict.why.endswith("but which node is not known")


def test_more_ranks_cry_out_than_are_read(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that failed come first, however many follow."""
    monkeypatch.setattr(evidence, "READ_BYTES", 5 * evidence.TAIL_BYTES)
    case.error(100, traceback_of("ValueError: the one"), second=10)
    for rank in range(100):
        case.error(rank, traceback_of(PEER), second=11)
    verdict = case.judge()
    assert (verdict.rank, verdict.kind) == (100, "Python error")
    assert verdict.aftermath == {"lost connection": 4}


def test_only_the_end_of_a_long_log_is_read(case: Case) -> None:
    case.log(1, "OSError: [Errno 28] No space left on device\n" + "step\n" * 10_000)
    case.log(2, "step\n" * 100_000 + "torch.OutOfMemoryError: CUDA out of memory.")
    verdict = case.judge()
    assert (verdict.kind, verdict.aftermath) == ("GPU memory", {})


def test_the_postmortem(case: Case) -> None:
    case.folder.slurm.write_text('{"cluster": "x", "ids": ["7"]}')
    again(case, kind="other")
    case.error(5, traceback_of("torch.OutOfMemoryError: CUDA out of memory. Tried 9 GiB"))
    for rank in range(3):
        case.error(rank, traceback_of(PEER))
    verdict = case.judge()
    write_postmortem(case.folder, verdict)
    text = case.folder.postmortem.read_text()
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(BEGAN + 50))
    lines = text.splitlines()
    assert lines[0] == "# pretrain: GPU memory"
    words = "torch.OutOfMemoryError: CUDA out of memory. Tried 9 GiB"
    assert f"- **cause**: {words} (/home/me/train.py:12)" in lines
    assert "- **where**: rank 5 on node3" in lines
    assert f"- **when**: {when}" in text
    assert "- **decision**: it stops: it would run out of the GPU's memory again" in lines
    cure = "smaller batch.micro_size, more tensor or pipeline ranks, recompute, or more GPUs"
    assert f"{cure}; then `mj resubmit {case.folder.path.parent}`" in text
    assert "- **followed by**: lost connection on 3 other ranks" in lines
    assert "- **restarts so far**: 1" in lines
    assert lines[-2:] == ["rank-00005.log:", f"    {words}"] or lines[-1] == f"    {words}"
    assert len(lines) < 25


@pytest.mark.parametrize(
    ("trouble", "wanted"),
    [
        ("bug", "- **cause**: ZeroDivisionError: a planted bug ("),
        ("kill", "- **cause**: rank 1 was ended by SIGKILL"),
        ("user", "- **cause**: text: 'hello' is too friendly; say less"),
    ],
)
def test_a_local_run_leaves_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, wanted: str
) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", str(root))
    job = {"stage": "tests.stages.echo", "resources": {"ranks": 2}, "trouble": trouble, "guilty": 1}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"jobs": {"job": job}}))
    with pytest.raises((JobFailed, UserError)):
        run_plan(load_plan(str(tmp_path / "plan.yaml"), [], tmp_path / "run"))
    text = (tmp_path / "run/job/postmortem.md").read_text()
    assert wanted in text
    assert "- **where**: rank 1\n" in text
    assert (f"({root}/tests/stages/echo.py:" in text) == (trouble == "bug")
