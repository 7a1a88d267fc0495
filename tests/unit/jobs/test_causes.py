# ruff: noqa: E501 (lines of logs)
"""A sample of each kind of failure, told by one rank while the others only lost it.

Samples have the form of what CUDA, NCCL, PyTorch, gloo and Slurm print; those of srun and of
slurmstepd were printed by Slurm 22.05.
"""

from pathlib import Path

import pytest
import yaml

from megatron_jobs.jobs.causes import RULES
from tests.failed_job import ENDING, PEER, Case, traceback_of

CUDA_MORE = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the "
    "stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1."
    "\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


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
    "OSError: [Errno 30] Read-only file system: '/opt/cache'": ("read-only", "stop"),
    "OSError: [Errno 30] Read-only file system: '/var/tmp/x'": ("node's disk", "exclude"),
    "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max "
    "retries exceeded with url: /x (Caused by NewConnectionError('<urllib3.connection.HTTPSConnection "
    "object at 0x7f>: Failed to establish a new connection: [Errno 111] Connection refused'))": (
        "outside world", "stop"),
    "OSError: We couldn't connect to 'https://huggingface.co' to load the files": (
        "outside world", "stop"),
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


def test_a_job_that_asks_for_no_gpu_accuses_no_node(case: Case) -> None:
    description = yaml.safe_load(case.folder.config.read_text())
    description["resources"]["gpus"] = 0
    case.folder.config.write_text(yaml.safe_dump(description))
    case.error(5, traceback_of("RuntimeError: No CUDA GPUs are available"))
    verdict = case.judge()
    assert (verdict.kind, verdict.decision) == ("no GPU", "stop")
    assert verdict.cure == "set resources.gpus: GPUs of each node"


@pytest.mark.parametrize(
    "words",
    [
        "srun: error: Unable to create step for job 7: Memory required by task is not available",
        "srun: error: Unable to create step for job 7: Socket timed out on send/recv operation",
        "srun: error: Unable to confirm allocation for job 7: Unable to contact slurm controller",
    ],
)
def test_slurm_that_is_too_busy_to_start_ranks_is_asked_again(case: Case, words: str) -> None:
    case.batch(f"{words}\n")
    verdict = case.judge()
    assert (verdict.kind, verdict.decision, verdict.node) == ("no step", "requeue", "")
    case.error(3, traceback_of("ValueError: x"))
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
