# ruff: noqa: E501 (lines of logs)
"""The first real cause: a sample of each kind of failure, mixes in which the aftermath is louder.

Samples have the form of what CUDA, NCCL, PyTorch, gloo and Slurm print; those of srun and of
slurmstepd were printed by Slurm 22.05.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.errors import EXIT_UNFIT, UserError
from megatron_jobs.jobs import evidence
from megatron_jobs.jobs.causes import RULES
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.local import JobFailed, run_plan
from megatron_jobs.jobs.plan import load_plan
from megatron_jobs.jobs.triage import Verdict, judge, write_postmortem

NODES = ["node1", "node2", "node3", "node4"]
BEGAN = time.time() - 1000
HEADER = "2026-11-21T08:34:36+00:00 Slurm job 7, restart {}, on node[1-4]\n"
PEER = (
    "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] "
    "Connection closed by peer [127.0.77.2]:41234"
)
ENDING = "srun: launch/slurm: _step_signal: Terminating StepId=7.0\n"
CUDA_MORE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the "
    "stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1."
    "\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)


class Case:
    """A job of 4 nodes x 2 ranks, whose files tell how its last start ended."""

    def __init__(self, path: Path) -> None:
        self.folder = JobFolder(path / "run" / "pretrain")
        self.folder.logs.mkdir(parents=True)
        job = {"stage": "pretrain", "resources": {"nodes": 4, "ranks": 2}, "after": []}
        self.folder.config.write_text(yaml.safe_dump(job))
        self.batch(HEADER.format(0))
        self.event("start", time=BEGAN, nodes=NODES, restart=0, slurm_job_id="7")

    def event(self, name: str, **facts: Any) -> None:
        record = {"time": BEGAN + 1, "event": name, "slurm_job_id": "7", "host": "node1"} | facts
        with self.folder.events.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def batch(self, text: str) -> None:
        with (self.folder.logs / "batch.log").open("a") as file:
            file.write(text)

    def log(self, rank: int, text: str, second: float = 50) -> None:
        self._write(self.folder.log(rank), text, second)

    def error(self, rank: int, text: str, second: float = 50) -> None:
        self._write(self.folder.error(rank), text, second)
        self.log(rank, text, second + 0.1)

    def _write(self, path: Path, text: str, second: float) -> None:
        with path.open("a") as file:
            file.write(text + "\n")
        os.utime(path, (BEGAN + second, BEGAN + second))

    def judge(self, status: int = 1) -> Verdict:
        return judge(self.folder, status=status)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def traceback_of(error: str, file: str = "/home/me/train.py", line: int = 12) -> str:
    return (
        "Traceback (most recent call last):\n"
        '  File "/opt/code/megatron_jobs/runtime/launch.py", line 140, in run_and_report\n'
        "    work()\n"
        f'  File "{file}", line {line}, in step\n'
        "    loss.backward()\n"
        '  File "/opt/venv/lib/python3.11/site-packages/torch/_tensor.py", line 647, in backward\n'
        "    torch.autograd.backward(\n"
        f"{error}"
    )


LINES = {
    "RuntimeError: CUDA error: uncorrectable ECC error encountered" + CUDA_MORE: (
        "GPU fault", "exclude"),
    "torch.AcceleratorError: CUDA error: unspecified launch failure" + CUDA_MORE: (
        "GPU fault", "exclude"),
    "[ 842.9] NVRM: Xid (PCI:0000:5d:00): 79, pid=3114, GPU has fallen off the bus.": (
        "GPU fault", "exclude"),
    "RuntimeError: No CUDA GPUs are available": ("GPU fault", "exclude"),
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 22.78 GiB. GPU 0 has a total "
    "capacity of 79.15 GiB of which 12.73 GiB is free.": ("GPU memory", "stop"),
    "torch.AcceleratorError: CUDA error: device-side assert triggered" + CUDA_MORE: (
        "assertion on the GPU", "stop"),
    "RuntimeError: CUDA error: an illegal memory access was encountered" + CUDA_MORE: (
        "illegal access on the GPU", "requeue"),
    "RuntimeError: unable to open shared memory object </torch_31_9> in read-write mode: "
    "No space left on device (28)": ("shared memory", "exclude"),
    "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 120. GiB for an array with shape "
    "(16106127360,) and data type int64": ("memory", "stop"),
    "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
    "memory: you tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)": (
        "memory", "stop"),
    "OSError: [Errno 28] No space left on device": ("disk full", "stop"),
    "OSError: [Errno 122] Disk quota exceeded: '/home/me/run/x'": ("disk full", "stop"),
    "OSError: [Errno 28] No space left on device: '/tmp/cache/a'": ("node's disk", "exclude"),
    "OSError: [Errno 116] Stale file handle: '/lustre/data/tokens.bin'": ("file system", "requeue"),
    "OSError: [Errno 5] Input/output error": ("file system", "requeue"),
    "OSError: [Errno 108] Cannot send after transport endpoint shutdown": (
        "file system", "requeue"),
    "torch.distributed.DistBackendError: NCCL error in: /pytorch/torch/csrc/distributed/c10d/"
    "NCCLUtils.hpp:268, unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version "
    "2.21.5\nncclSystemError: System call (e.g. socket, malloc) or external library call failed": (
        "NCCL", "requeue"),
    "torch.distributed.DistBackendError: NCCL error in: ../NCCLUtils.hpp:275, invalid usage (run "
    "with NCCL_DEBUG=WARN for details), NCCL version 2.19.3\nncclInvalidUsage: This usually reflects "
    "invalid usage of NCCL library.\nLast error:\nDuplicate GPU detected": ("NCCL's use", "stop"),
    "ZeroDivisionError: a planted bug": ("Python error", "stop"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "wanted"), LINES.items())
def test_last_words_of_a_rank(case: Case, words: str, wanted: tuple[str, str]) -> None:
    """One rank says why; all others only that they lost it, and half of them before it."""
    case.error(5, traceback_of(words), second=50)
    for rank in (0, 1, 2):
        case.error(rank, traceback_of(PEER), second=49)
    case.batch(f"srun: error: node1: tasks 0-1: Exited with exit code 1\n{ENDING}")
    case.batch("srun: error: node4: tasks 6-7: Terminated\n")
    verdict = case.judge()
    assert (verdict.kind, verdict.decision) == wanted
    assert (verdict.rank, verdict.node) == (5, "node3")
    assert verdict.cause == f"{words.splitlines()[0]} (/home/me/train.py:12)"
    assert verdict.aftermath == {"lost connection": 3}


LOGGED = {
    "node9:353236:353423 [6] transport/net_ib.cc:2244 NCCL WARN NET/IB: Got completion from peer "
    "192.168.3.5<53908> with status=12 opcode=129 len=1048576 vendor err 129 (Recv) localGid "
    "::ffff:192.168.6.3 remoteGids::ffff:192.168.6.5 hca mlx5_10": ("network", "requeue"),
    "node9:13571:13571 [0] transport/net_ib.cc:101 NCCL WARN NET/IB : mlx5_0:1 Got async event : "
    "port error": ("network port", "exclude"),
    "[rank4]:[E626 06:24:44.903881913 ProcessGroupNCCL.cpp:616] [Rank 4] Watchdog caught collective "
    "operation timeout: WorkNCCL(SeqNum=808, OpType=ALLREDUCE, NumelIn=9801523, NumelOut=9801523, "
    "Timeout(ms)=600000) ran for 600020 milliseconds before timing out.": (
        "collective timed out", "requeue"),
    "/pytorch/aten/src/ATen/native/cuda/Indexing.cu:1369: indexSelectSmallIndex: block: [4,0,0], "
    "thread: [0,0,0] Assertion `srcIndex < srcSelectDimSize` failed.": (
        "assertion on the GPU", "stop"),
    "ERROR: Unexpected bus error encountered in worker. This might be caused by insufficient shared "
    "memory (shm).": ("shared memory", "exclude"),
    "terminate called after throwing an instance of 'std::bad_alloc'": ("memory", "stop"),
}  # fmt: skip


LOST = [
    "[rank5]:[E207 19:37:09.983600771 ProcessGroupNCCL.cpp:1895] [PG ID 0 PG GUID 0(default_pg) Rank "
    "5] Process group watchdog thread terminated with exception: NCCL error: remote process exited "
    "or there was a network error, NCCL version 2.21.5",
    "[rank1]:[W512 02:04:06.1 TCPStore.cpp:125] [c10d] recvValue failed on SocketImpl(fd=135, "
    "addr=[n1]:48750, remote=[n0]:20000): Connection reset by peer",
    "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 3/4 clients "
    "joined.",
    "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out "
    "waiting 1800000ms for recv operation to complete",
]  # fmt: skip


@pytest.mark.parametrize(("line", "wanted"), LOGGED.items())
def test_lines_that_libraries_log_before_they_abort(
    case: Case, line: str, wanted: tuple[str, str]
) -> None:
    case.log(4, f"step 10\n{line}\nand more")
    for rank in (0, 3, 7):
        case.log(rank, PEER, second=40)
    case.batch(f"srun: error: node3: task 4: Aborted (core dumped)\n{ENDING}")
    verdict = case.judge(134)
    assert (verdict.kind, verdict.decision) == wanted
    assert (verdict.rank, verdict.node) == (4, "node3")
    assert line.startswith(verdict.cause.removesuffix("..."))


@pytest.mark.parametrize("line", LOST)
def test_a_lost_connection_is_the_cause_only_beside_nothing_else(case: Case, line: str) -> None:
    case.log(4, f"step 10\n{line}")
    for rank in (0, 3, 7):
        case.log(rank, PEER, second=60)
    case.batch(f"srun: error: node3: task 4: Aborted (core dumped)\n{ENDING}")
    verdict = case.judge(134)
    assert (verdict.kind, verdict.decision, verdict.rank) == ("lost connection", "requeue", 4)
    case.error(7, traceback_of("ValueError: x"), second=70)
    assert case.judge().kind == "Python error"


def test_every_rule_has_a_sample() -> None:
    shown = {kind for kind, _ in (LINES | LOGGED).values()}
    assert {rule.kind for rule in RULES} == shown - {"Python error"} | {"lost connection"}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("srun: error: node2: task 3: Killed\n", ("killed", "requeue", 3, "node2")),
        ("srun: error: node2: task 3: Exited with exit code 137\n", ("killed", "requeue", 3, "node2")),
        (
            "srun: error: node2: task 3: Segmentation fault (core dumped)\n",
            ("crash", "requeue", 3, "node2"),
        ),
        ("srun: error: node2: task 3: Bus error (core dumped)\n", ("crash", "requeue", 3, "node2")),
        ("srun: error: node2: task 3: Aborted (core dumped)\n", ("crash", "requeue", 3, "node2")),
        ("srun: error: node2: task 3: Out Of Memory\n", ("memory", "stop", 3, "node2")),
        (
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have "
            "been OOM Killed.\nsrun: error: node2: task 3: Killed\n",
            ("memory", "stop", None, ""),
        ),
        (
            "srun: error: Node failure on node2\n"
            "slurmstepd-node1: error: *** JOB 7 ON node1 CANCELLED AT 2026-11-21T08:35:12 DUE TO NODE "
            "FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***\n"
            "srun: Job step aborted: Waiting up to 5 seconds for job step to finish.\n",
            ("node loss", "requeue", None, "node2"),
        ),
        (
            "srun: error: Task launch for StepId=7.0 failed on node node2: Communication connection "
            "failure\nsrun: error: Application launch failed: Communication connection failure\n",
            ("launch", "exclude", None, "node2"),
        ),
        (
            "slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-11-21T08:34:52 DUE TO TIME "
            "LIMIT ***\n",
            ("time limit", "requeue", None, ""),
        ),
        (
            "slurmstepd: error: *** JOB 7 ON node1 CANCELLED AT 2026-11-21T08:34:52 DUE TO PREEMPTION "
            "***\n",
            ("preemption", "requeue", None, ""),
        ),
        (
            "slurmstepd-node1: error: *** JOB 7 ON node1 CANCELLED AT 2026-11-21T08:34:52 ***\n",
            ("cancelled", "stop", None, ""),
        ),
    ],
)  # fmt: skip
def test_words_of_slurm(case: Case, said: str, wanted: tuple[str, str, int | None, str]) -> None:
    """The ranks only lost their connections; srun's words of those it ends itself do not count."""
    for rank in (0, 1):
        case.error(rank, traceback_of(PEER), second=40)
    case.batch(f"{said}{ENDING}srun: error: node1: tasks 0-1: Exited with exit code 1\n")
    case.batch("srun: error: node4: tasks 6-7: Killed\nsrun: error: node3: task 4: Terminated\n")
    found = case.judge(143)
    assert (found.kind, found.decision, found.rank, found.node) == wanted
    assert said.splitlines()[0].endswith(found.cause)
    assert not found.cause.startswith(("srun", "slurmstepd"))


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
    """Logs and events are appended to; a log that was not written to since is an earlier start's."""
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
    assert (
        f"smaller batch.micro_size, more tensor or pipeline ranks, recompute, or more GPUs; then `mj resubmit {case.folder.path.parent}`"
        in text
    )
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
