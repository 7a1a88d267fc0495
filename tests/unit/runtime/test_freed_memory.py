"""Memory that comes and goes, in a process of its own."""

import subprocess
import sys

PROGRAM = """
import resource, sys
from megatron_jobs.runtime.freed_memory import keep_freed_memory

assert len(sys.argv) == 1 or keep_freed_memory(1 << 26)
for turn in range(50):
    if turn == 5:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"x" * (1 << 20) for _ in range(16)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*words: str) -> int:
    """How often the system was asked for memory in 45 turns."""
    command = [sys.executable, "-c", PROGRAM, *words]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_it_is_asked_for_once() -> None:
    assert faults() > 45
    assert faults("kept") < 10
