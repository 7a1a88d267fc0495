"""What failures look like in logs, what each means for the job, and what cures it: a table.

The words are those of CUDA 12 and 13, NCCL 2.14 to 2.28, PyTorch 2.1 to 2.13, gloo, Linux, and
Slurm 20.11 and newer. To add a rule: a line here, a real sample in tests/unit/jobs/test_triage.py.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Decision = Literal["requeue", "exclude", "stop"]
"""Go on; go on without the node; end here."""


class Weight(IntEnum):
    """How much a finding explains. A lighter one is never the cause beside a heavier one."""

    CAUSE = 0
    LIKELY = 1
    """May be a cause, or follow from what another rank or node did."""
    AFTERMATH = 2
    """Follows from the end of another rank."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of failure."""

    kind: str
    pattern: re.Pattern[str]
    """Searched in one line of a log."""
    decision: Decision
    why: str
    """After the decision: one sentence without its end."""
    cure: str = ""
    """What a person can do, when the job is stopped."""
    weight: Weight = Weight.CAUSE
    again: Decision | None = None
    """The decision when the same rank failed on the same node in the same way at the start before;
    None: the same as at first."""


def _rule(
    kind: str,
    words: str,
    decision: Decision,
    why: str,
    cure: str = "",
    *,
    weight: Weight = Weight.CAUSE,
    again: Decision | None = None,
) -> Rule:
    return Rule(kind, re.compile(words), decision, why, cure, weight, again)


FREE_GPU_MEMORY = "smaller batch.micro_size, more tensor or pipeline ranks, recompute, or more GPUs"
FREE_MEMORY = "ask for more resources.memory_gb, or fewer ranks on a node"
FREE_DISK = "free space or raise the quota (checkpoints: keep fewer)"
GPU_FAULT = "GPU fault"
GPU_WORDS = (
    r"uncorrectable ECC|ECC_UNCORRECTABLE|NVRM: Xid|\bXid \(PCI|fallen off the bus|GPU is lost"
    r"|CUDA error: (unspecified launch failure|unknown error|hardware stack error"
    r"|misaligned address|the launch timed out|system not yet initialized"
    r"|system has unsupported display driver|CUDA-capable device\(s\) is/are busy"
    r"|no CUDA-capable device is detected|initialization error|NVLink|device not ready"
    r"|Invalid access of peer GPU memory over nvlink)"
    r"|No CUDA GPUs are available|CUDA driver initialization failed"
    r"|Unable to determine the device handle for"
)
NODE_TWICE = "the node may be to blame: a second time there it is left out"

RULES: tuple[Rule, ...] = (
    _rule(GPU_FAULT, GPU_WORDS, "exclude", "a GPU of the node is broken or gone"),
    _rule(
        "GPU memory",
        r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError: (CUDA|HIP)"
        r"|CUBLAS_STATUS_ALLOC_FAILED",
        "stop",
        "it would run out of the GPU's memory again",
        FREE_GPU_MEMORY,
    ),
    _rule(
        "assertion on the GPU",
        r"CUDA error: device-side assert triggered|block: \[.*Assertion `.*` failed",
        "stop",
        "an index or a value is out of range, and would be again",
        "look for a token id over the vocabulary, or a label that is no class; run it on the CPU",
    ),
    _rule(
        "illegal access on the GPU",
        r"CUDA error: an illegal (memory access|instruction)",
        "requeue",
        f"a kernel's bug or a broken GPU; {NODE_TWICE}",
        again="exclude",
    ),
    _rule(
        "shared memory",
        r"Unexpected bus error encountered in worker|unable to (mmap|open shared memory|write to "
        r"file </torch)|No space left on device.*/dev/shm",
        "exclude",
        "the node's /dev/shm is full or too small",
    ),
    _rule(
        "memory",
        r"oom[_-]kill|Out Of Memory|Out of memory: Killed process|std::bad_alloc|MemoryError\b"
        r"|Unable to allocate .* for an array|DefaultCPUAllocator: (can't|not enough)"
        r"|Cannot allocate memory",
        "stop",
        "it would run out of the node's memory again",
        FREE_MEMORY,
    ),
    _rule(
        "node's disk",
        r"(No space left on device|Read-only file system): '(/tmp|/local|/scratch/local|/var)/",
        "exclude",
        "the node's own disk is full or broken",
    ),
    _rule(
        "disk full",
        r"No space left on device|Disk quota exceeded|Errno (28|122)\]|ENOSPC|EDQUOT",
        "stop",
        "there would be no room again",
        FREE_DISK,
    ),
    _rule(
        "file system",
        r"Stale (NFS )?file handle|Input/output error|Transport endpoint is not connected"
        r"|Cannot send after transport endpoint shutdown|Remote I/O error"
        r"|Errno (116|107|108|121)\]",
        "requeue",
        f"a file system failed, on the node or for all; {NODE_TWICE}",
        again="exclude",
    ),
    _rule(
        "read-only",
        r"Read-only file system|Errno 30\]",
        "stop",
        "nothing can be written there, and could not be then",
        "name another folder, or mount it so that it can be written to",
    ),
    _rule(
        "outside world",
        r"HTTPS?ConnectionPool|(urllib3?|requests|httpx|httpcore)\.(exceptions|error)\.\w+"
        r"|https?://\S+.*([Rr]efused|[Tt]imed out|unreachable|resolv)"
        r"|([Cc]onnect|reach|load|fetch|resolve)\w* .*https?://",
        "stop",
        "what it asked for is not to be had from the nodes",
        "fetch it once where there is a network, and name the local copy",
    ),
    _rule(
        "network port",
        r"NET/IB ?: .*Got async event ?: (port error|local catastrophic error|device fatal)",
        "exclude",
        "a network port of the node failed",
    ),
    _rule(
        "network",
        r"NET/IB ?: Got completion from peer .*(status=|error )(12|13)\b"
        r"|transport retry counter exceeded|RETRY_EXC_ERR",
        "requeue",
        f"the network gave up on the way to another node; {NODE_TWICE}",
        weight=Weight.LIKELY,
        again="exclude",
    ),
    _rule(
        "collective timed out",
        r"Watchdog caught collective operation timeout|Watchdog.*heartbeat.*(timed out|timeout)",
        "requeue",
        "a rank did not come to a collective in time",
        weight=Weight.LIKELY,
    ),
    _rule(
        "NCCL",
        r"ncclUnhandledCudaError|unhandled cuda error|ncclSystemError|unhandled system error"
        r"|ncclInternalError|internal error - please report|NET/IB ?: Got completion from peer",
        "requeue",
        f"NCCL met an error of the system; {NODE_TWICE}",
        weight=Weight.LIKELY,
        again="exclude",
    ),
    _rule(
        "NCCL's use",
        r"ncclInvalidUsage|ncclInvalidArgument|invalid usage \(run with NCCL_DEBUG",
        "stop",
        "NCCL was called wrongly, as with two ranks on one GPU, and would be again",
        "see NCCL's line in the log; one GPU for each rank (resources.gpus = ranks)",
        weight=Weight.LIKELY,
    ),
    _rule(
        "lost connection",
        r"Connection closed by (remote )?peer|Connection reset by (remote )?peer|Broken pipe"
        r"|Connection refused|remote process exited or there was a network error|ncclRemoteError"
        r"|NCCL communicator was aborted|Timed out waiting \d+ms for (recv|send) operation"
        r"|(recvValue|sendBytes|recvBytes|recvVector)\w* failed|failed to recv, got 0 bytes"
        r"|DistStoreError|DistNetworkError|clients joined|wait timeout after \d+ ?ms"
        r"|Socket Timeout|socket has timed out|Timeout waiting for key|waited .* in vain"
        r"|Broadcasting? .*unique ?id|transport/tcp/pair\.cc|Some NCCL operations have failed",
        "requeue",
        "a rank lost its connection to another that ended without a word",
        weight=Weight.AFTERMATH,
    ),
)
"""In the order in which they are tried on a line; the first that fits counts."""

NO_GPU = _rule(
    "no GPU", "", "stop", "the job asks Slurm for none", "set resources.gpus: GPUs of each node"
)
NODE_LOSS = _rule(
    "node loss",
    r"srun: error: Node failure on (?P<node>\S+)|DUE TO NODE FAILURE",
    "requeue",
    "Slurm lost the node and gives others",
)
NO_STEP = _rule(
    "no step",
    r"srun: error: (Unable to (create step|confirm allocation)|.*Unable to contact slurm)"
    r"|Job credential (expired|revoked)",
    "requeue",
    "Slurm could not start the ranks this time",
    weight=Weight.LIKELY,
)
LAUNCH = _rule(
    "launch",
    r"srun: error: Task launch for \S+ failed on node (?P<node>[^\s:]+)",
    "exclude",
    "Slurm could not start ranks on the node",
)
MEMORY = next(rule for rule in RULES if rule.kind == "memory")
TIME_LIMIT = _rule(
    "time limit", "DUE TO TIME LIMIT", "requeue", "it goes on from what was saved last",
    weight=Weight.LIKELY,
)  # fmt: skip
PREEMPTED = _rule(
    "preemption", "DUE TO PREEMPTION", "requeue", "another job came first", weight=Weight.LIKELY
)
PUT_BACK = _rule(
    "put back", "DUE TO JOB REQUEUE", "requeue", "it was put back in the queue",
    weight=Weight.LIKELY,
)  # fmt: skip
CANCELLED = _rule(
    "cancelled", r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+ \*\*\*", "stop", "it was cancelled",
    "nothing, if it was meant", weight=Weight.LIKELY,
)  # fmt: skip
BATCH_RULES = (NODE_LOSS, NO_STEP, LAUNCH, MEMORY, TIME_LIMIT, PREEMPTED, PUT_BACK, CANCELLED)
"""What Slurm says in the batch script's log."""

PYTHON = _rule(
    "Python error", "", "stop", "it would fail at the same place again",
    "mend the code or its settings",
)  # fmt: skip
SETTINGS = _rule("settings or data", "", "stop", "it is yours to mend", "mend the plan or the data")
STALL = _rule("stall", "", "requeue", f"a rank gave no sign of life; {NODE_TWICE}", again="exclude")
SILENT_NODE = _rule("stall", "", "exclude", "the node does not answer any more")
UNFIT = _rule("unfit nodes", "", "exclude", "too few nodes passed the preflight")
VANISHED = _rule("node loss", "", "exclude", "all ranks of the node ended without a word")
KILLED = _rule(
    "killed", "", "requeue",
    f"somebody killed the rank, or its node did for want of memory; {NODE_TWICE}",
    again="exclude",
)  # fmt: skip
CRASHED = _rule(
    "crash", "", "requeue", f"a bug of compiled code, or the node's fault; {NODE_TWICE}",
    again="exclude",
)  # fmt: skip
NOT_STARTED = _rule(
    "not started", "", "stop", "no rank could start, and none would",
    "see logs/batch.log; `mj doctor` tries the cluster's profile",
)  # fmt: skip
SILENT = _rule("silent end", "", "requeue", "no rank left a word")
EXITED = _rule(
    "early end", "", "stop", "the rank ended by itself without an error, and would again",
    "see the rank's log", weight=Weight.LIKELY,
)  # fmt: skip

SIGNALS = {
    "Killed": KILLED,
    "Segmentation fault": CRASHED,
    "Bus error": CRASHED,
    "Illegal instruction": CRASHED,
    "Floating point exception": CRASHED,
    "Aborted": CRASHED,
}
"""Slurm's words for a task that ended by a signal -> rule."""
SIGNALS_BY_NUMBER = {
    9: "Killed", 11: "Segmentation fault", 7: "Bus error", 4: "Illegal instruction",
    8: "Floating point exception", 6: "Aborted", 15: "Terminated",
}  # fmt: skip
"""Linux's numbers; exit status 128 + number comes from a shell or a container around the rank."""


NETWORKED = frozenset({"lost connection", "collective timed out", "NCCL", "network"})
"""Kinds that a rank notes when another, or its whole node, is gone."""
_ANY = re.compile("|".join(rule.pattern.pattern for rule in RULES))


def rule_for(line: str, rules: Iterable[Rule] = RULES) -> Rule | None:
    """The first rule that fits a line of a log."""
    return next((rule for rule in rules if rule.pattern.search(line)), None)


def lines_of_trouble(text: str) -> Iterator[tuple[int, str]]:
    """(place, line) of each line that any rule fits: one search for all rules together."""
    end = 0
    while found := _ANY.search(text, end):
        start = text.rfind("\n", 0, found.start()) + 1
        end = text.find("\n", found.end())
        end = end if end >= 0 else len(text)
        yield start, text[start:end]
