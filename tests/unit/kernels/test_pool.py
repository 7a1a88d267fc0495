"""The threads of the kernels: after a fork, from several callers at a time, by machine."""

import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from megatron_jobs import _kernels
from megatron_jobs.kernels.norm import rms_norm
from megatron_jobs.kernels.residual_ops import add_residual
from tests.fused import chosen, drawn, machine, threads

INPUTS = [x.detach() for x in drawn((600, 300), (300,), dtype=torch.float32)]


def normed() -> torch.Tensor:
    """Several pieces of work for the threads."""
    with chosen(norm="fused"):
        return rms_norm(*INPUTS)


def test_a_forked_process_has_threads_of_its_own() -> None:
    """It has none of those that its parent started, and would wait for them for ever.

    Nothing else there is done by threads: torch's own (OpenMP) do not outlive a fork.
    """
    with threads(3):
        before = normed().numpy().tobytes()
        if (child := os.fork()) == 0:
            signal.alarm(20)
            same = all(normed().numpy().tobytes() == before for _ in range(5))
            own = len(os.listdir("/proc/self/task"))
            os._exit(0 if same and own == 3 else 100 + own)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert normed().numpy().tobytes() == before


def test_the_threads_are_those_of_torch() -> None:
    """Others would share the cores with them: they wait awake for torch's next work."""
    with threads(4):
        torch.ones(1 << 20).exp()
        before = set(os.listdir("/proc/self/task"))
        normed()
        assert len(before) >= 4
        assert set(os.listdir("/proc/self/task")) == before


ALONE = """
import os, sys
import numpy as np
from megatron_jobs import _kernels
x, y, scale, weight = np.ones((600, 300), "f"), np.zeros((600, 300), "f"), np.zeros(600, "f"), \
    np.full(300, 3, "f")
_kernels.norm_forward(
    x.ctypes.data, 0, weight.ctypes.data, 0, y.ctypes.data, 0, 0, scale.ctypes.data,
    rows=600, columns=300, dtype=0, eps=0.0, offset=False, threads=3,
)
assert "torch" not in sys.modules
print(y.min(), y.max(), len(os.listdir("/proc/self/task")))
"""


def test_without_openmp_there_are_threads_all_the_same() -> None:
    few = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=few, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["3.0", "3.0", "3"], done.stderr


def test_callers_at_one_time_do_not_meet() -> None:
    """Each has a team, or goes on alone, and all find the same."""
    wanted = normed()
    found: list[bool] = []

    def call() -> None:
        found.extend(torch.equal(normed(), wanted) for _ in range(20))

    with threads(3):
        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(60)
    assert found == [True] * 80


def test_more_and_fewer_threads_from_call_to_call() -> None:
    wanted = normed()
    for count in (4, 1, 2, 8, 2):
        with threads(count):
            assert torch.equal(normed(), wanted)


def test_a_machine_is_chosen_by_name() -> None:
    assert _kernels.machine() == _kernels.machines()[-1]
    with machine("plain"):
        assert _kernels.machine() == "plain"
    with pytest.raises(ValueError, match=r"^machine must be plain, .* or avx512_bf16, got sse$"):
        _kernels.choose_machine("sse")


def test_what_a_piece_throws_reaches_the_caller() -> None:
    """Threads that are not Python's have nobody to tell."""
    x = torch.ones(200, 1000)
    places = (x.data_ptr(), x.data_ptr(), x.data_ptr(), x.data_ptr())
    for threads_ in (1, 3):
        with pytest.raises(ValueError, match=r"^dtype must be 0 \(fp32\), 1 .*, got 7$"):
            _kernels.add_residual(*places, rows=200, columns=1000, dtype=7, threads=threads_)
    assert torch.equal(x, torch.ones(200, 1000))


def test_all_threads_flush_denormal_numbers_as_their_caller_does() -> None:
    x = torch.full((400, 1000), 2.0**-130)
    zeros = torch.zeros(1000)
    found = []
    try:
        for flush, count in itertools.product((True, False), (3, 1)):
            torch.set_flush_denormal(flush)
            with threads(count):
                found.append(add_residual(x, zeros, x))
    finally:
        torch.set_flush_denormal(False)
    assert [float(y.double().unique()) for y in found] == [0, 0, 2.0**-129, 2.0**-129]
