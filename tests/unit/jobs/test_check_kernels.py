"""Each line of `mj doctor` about fused kernels; the sentence in full."""

import sys
from typing import Any

import pytest

from megatron_jobs import _kernels
from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.jobs.check_install import look_at
from megatron_jobs.jobs.check_kernels import CURE, MACHINES, ON_CPU, judge_kernels
from tests.unit.jobs.checks import lines

CPU = {"machine": "avx2", "has": ["norm_forward", "rope"]}
CUDA = {"devices": 2, "has": ["norm"]}
NOT_BUILT = "megatron_jobs._cuda is not built"


@pytest.mark.parametrize(
    ("cpu", "cuda", "state", "norm", "loss"),
    [
        (CPU, CUDA, "ok", "CPU fused, AVX2; CUDA fused", None),
        (
            CPU | {"machine": "plain"},
            CUDA | {"devices": 0},
            "ok",
            "CPU fused, code for every machine; CUDA fused, but no GPU is on this machine",
            "CPU plain torch, for none is made; CUDA plain torch, for none is made",
        ),
        (
            "is not built",
            "cannot be loaded: libcuda.so.1",
            "note",
            "CPU plain torch, for megatron_jobs._kernels is not built; CUDA plain torch, for "
            f"megatron_jobs._cuda cannot be loaded: libcuda.so.1; {CURE}",
            None,
        ),
        (CPU, "is not built", "ok", f"CPU fused, AVX2; CUDA plain torch, for {NOT_BUILT}", None),
    ],
)
def test_lines(cpu: Any, cuda: Any, state: str, norm: str, loss: str | None) -> None:
    found = lines(judge_kernels({"cpu": cpu, "cuda": cuda}), state)
    assert found[0] == f"kernel norm: {norm}"
    assert len(found) == len(KernelsConfig.model_fields)
    if loss is not None:
        assert f"kernel loss: {loss}" in found


def test_this_python_is_asked() -> None:
    found = look_at(sys.executable)
    assert isinstance(found, dict)
    (norm, *_) = lines(judge_kernels(found["kernels"]), "ok")
    assert norm.startswith(f"kernel norm: CPU fused, {MACHINES[_kernels.machine()]}; CUDA ")


def test_every_kernel_is_told_of() -> None:
    assert set(ON_CPU) == set(KernelsConfig.model_fields)


@pytest.mark.parametrize("kernel", ON_CPU)
def test_what_is_looked_for_is_built(kernel: str) -> None:
    """A name that no extension has would be told of as a kernel that is not made."""
    assert callable(getattr(_kernels, ON_CPU[kernel], None)), ON_CPU[kernel]
