"""What `mj doctor` says of each fused kernel: which code of it runs here, and why.

Asked of another process, which imports the extensions alone: they know nothing of torch.
"""

from collections.abc import Iterator
from typing import Any

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.jobs.check import Check, good, remark

LOOK = """
import importlib
def look_at_kernels(name, facts):
    try:
        module = importlib.import_module("megatron_jobs." + name)
    except ModuleNotFoundError:
        return "is not built"
    except ImportError as error:
        return f"cannot be loaded: {error}"
    return facts(module)
kernels = {
    "cpu": look_at_kernels(
        "_kernels", lambda module: {"machine": module.machine(), "has": dir(module)}
    ),
    "cuda": look_at_kernels(
        "_cuda", lambda module: {"devices": module.devices(), "has": list(module.KERNELS)}
    ),
}
"""
"""Python that sets `kernels`: for the CPU and for CUDA what is there, or why nothing is."""
ON_CPU = {
    "norm": "norm_forward",
    "activation": "activation_forward",
    "rope": "rope",
    "loss": "loss_parts",
    "softmax": "softmax_forward",
    "attention": "attention_forward",
    "adam": "adam_step",
    "gradients": "add_gradient",
    "experts": "bring_rows",
    "residual": "add_residual",
}
"""Field of `KernelsConfig` -> function of `_kernels` without which it is not made for the CPU."""
MACHINES = {
    "avx512_bf16": "AVX-512 and BF16",
    "avx512": "AVX-512",
    "avx2": "AVX2",
    "plain": "code for every machine",
}
CURE = "pip install -e . in the checkout, with a C++20 compiler"


def judge_kernels(found: dict[str, Any]) -> Iterator[Check]:
    """A line for each kernel; `found` as `LOOK` made it. Plain torch is slower, and no fault."""
    cpu, cuda = found["cpu"], found["cuda"]
    for kernel in KernelsConfig.model_fields:
        where = f"CPU {_on_cpu(kernel, cpu)}; CUDA {_on_cuda(kernel, cuda)}"
        what = f"kernel {kernel}"
        yield remark(what, where, CURE) if isinstance(cpu, str) else good(what, where)


def _on_cpu(kernel: str, cpu: dict[str, Any] | str) -> str:
    if isinstance(cpu, str):
        return f"plain torch, for megatron_jobs._kernels {cpu}"
    if ON_CPU[kernel] not in cpu["has"]:
        return "plain torch, for none is made"
    return f"fused, {MACHINES[cpu['machine']]}"


def _on_cuda(kernel: str, cuda: dict[str, Any] | str) -> str:
    if isinstance(cuda, str):
        return f"plain torch, for megatron_jobs._cuda {cuda}"
    if kernel not in cuda["has"]:
        return "plain torch, for none is made"
    return "fused" if cuda["devices"] else "fused, but no GPU is on this machine"
