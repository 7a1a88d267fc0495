"""A warning that comes while a rank starts is held back, and then heard."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import megatron_jobs.jobs
from megatron_jobs.runtime.files import wait_for

BATCH = Path(megatron_jobs.jobs.__file__).with_name("batch.sh").read_text()
RANK = """
import time
time.sleep(0.2)  # imports
from megatron_jobs.runtime.stop import install_stop_signals, stop_reason
install_stop_signals(deferred=True)
print(stop_reason())
"""


def start() -> "subprocess.Popen[str]":
    """A rank as the batch script has srun start it."""
    found = re.search(r"^held_back=\((.+?)\)$", BATCH, re.M | re.S)
    assert found, "batch.sh has no held_back"
    script = f'held_back=({found.group(1)})\nexec "${{held_back[@]}}" "$@"'
    command = ["bash", "-c", script, "bash", sys.executable, "-c", RANK]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def holds_back(process: "subprocess.Popen[str]") -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    if re.match(r"Name:\s*(bash|sh|dash)\n", status):  # a shell holds all back for moments
        return False
    blocked = int(re.findall(r"SigBlk:\s*(\w+)", status)[0], 16)
    return bool(blocked >> (signal.SIGUSR2 - 1) & 1)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_warning_that_comes_before_python_is_neither_deadly_nor_lost() -> None:
    with start() as process:
        wait_for(lambda: holds_back(process), "the block", seconds=20, every=0.0005)
        process.send_signal(signal.SIGUSR2)
        printed, _ = process.communicate(timeout=20)
    assert (process.returncode, printed) == (0, "SIGUSR2\n")


def test_a_rank_that_is_not_warned_starts_as_ever() -> None:
    with start() as process:
        printed, _ = process.communicate(timeout=20)
    assert (process.returncode, printed) == (0, "\n")
