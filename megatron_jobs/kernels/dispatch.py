"""Which form of a kernel runs: plain torch, or one compiled for the CPU or for CUDA."""

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.errors import UserError
from megatron_jobs.kernels import (  # noqa: F401 they register
    cuda_experts,
    cuda_heads,
    cuda_layers,
    cuda_loss,
)
from megatron_jobs.kernels.native import FLOATS, built

Form = Literal["reference", "cpu", "cuda"]
EXTENSIONS = {"cpu": "_kernels", "cuda": "_cuda"}
_chosen: dict[str, str] = KernelsConfig().model_dump()
_told: set[tuple[str, str]] = set()


class FallbackWarning(UserWarning):
    """A kernel set to `auto` runs as plain torch."""


def choose(config: KernelsConfig) -> None:
    """Set the form of every kernel of this process.

    Raises: UserError for `fused` where no extension is built.
    """
    if not any(map(built, EXTENSIONS.values())):
        for kernel, form in config.model_dump().items():
            if form == "fused":
                raise UserError(f"kernels.{kernel}: {form}, but none is built here; {CURE}")
    _chosen.update(config.model_dump())
    _told.clear()


CURE = "install the project again with a C++ compiler, or take auto"


def form_of(
    kernel: str,
    *tensors: Tensor | None,
    small: bool = False,
    unknown: str | None = None,
    dtypes: Sequence[torch.dtype] = FLOATS,
) -> Form:
    """The form in which `kernel` runs for these tensors, which are all on one device.

    Args:
        kernel: a field of `KernelsConfig`.
        tensors: those that the fused form would read; of one dtype of `dtypes` unless it is told
            otherwise by `unknown`. None is skipped.
        small: plain torch is faster for so few numbers; `auto` then takes it without a word.
        unknown: what the fused form does not know of this call, in a few words.
    Raises: UserError where `fused` is asked for and cannot be.
    """
    choice = _chosen[kernel]
    if choice == "reference" or (small and choice == "auto"):
        return "reference"
    here = [tensor for tensor in tensors if tensor is not None]
    if not here:
        raise ValueError(f"kernels.{kernel}: got no tensor; one or more say which form runs")
    device = here[0].device.type
    reason = unknown or _hindrance(kernel, device, here, dtypes)
    if reason is None:
        return "cpu" if device == "cpu" else "cuda"
    if choice == "fused":
        raise UserError(f"kernels.{kernel}: fused, but {reason}; auto takes plain torch there")
    if not torch.compiler.is_compiling() and (kernel, reason) not in _told:
        _told.add((kernel, reason))
        warnings.warn(f"kernels.{kernel}: plain torch, for {reason}", FallbackWarning, stacklevel=3)
    return "reference"


def _hindrance(
    kernel: str, device: str, tensors: list[Tensor], dtypes: Sequence[torch.dtype]
) -> str | None:
    """Why the fused form cannot run; None when it can."""
    if device not in EXTENSIONS:
        return f"it is not made for {device}"
    module = built(EXTENSIONS[device])
    if module is None:
        return f"megatron_jobs.{EXTENSIONS[device]} is not built"
    if device == "cuda" and kernel not in module.KERNELS:
        return "it is not made for cuda"
    if forward_ad._current_level >= 0 and any(map(_has_tangent, tensors)):
        return "it does not know forward-mode gradients"
    if not torch.compiler.is_compiling() and _functorch.maybe_current_level() is not None:
        return "it does not know the transforms of torch.func"
    for tensor in tensors:
        if tensor.dtype not in dtypes:
            return f"it does not know {str(tensor.dtype).removeprefix('torch.')}"
        if tensor.dtype != tensors[0].dtype:
            both = sorted(str(t.dtype).removeprefix("torch.") for t in (tensor, tensors[0]))
            return f"it does not know {both[0]} with {both[1]}"
    return None


def _has_tangent(tensor: Tensor) -> bool:
    """Whether it is differentiated in forward mode, which torch's operators say of themselves."""
    found = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    return found.tangent is not None
