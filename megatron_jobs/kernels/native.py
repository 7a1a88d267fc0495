"""The compiled extensions, and tensors as they take them: addresses of contiguous numbers."""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""What the extensions call a dtype; they know no other for numbers."""
FLOATS = tuple(CODES)


def _load(name: str) -> ModuleType | None:
    """The module `megatron_jobs.<name>`; None where it was not built."""
    whole = f"megatron_jobs.{name}"
    try:
        return importlib.import_module(whole)
    except ModuleNotFoundError as error:
        if error.name != whole:
            raise
        return None


MODULES = {name: _load(name) for name in ("_kernels", "_cuda")}
"""Loaded here and now: compilers do not look behind an import within a function."""


def built(name: str) -> ModuleType | None:
    """The extension of this name, `_kernels` or `_cuda`; None where it was not built."""
    return MODULES[name]


def cpu() -> Any:
    """`megatron_jobs._kernels`, once `form_of` said "cpu"."""
    return built("_kernels")


def cuda() -> Any:
    """`megatron_jobs._cuda`, once `form_of` said "cuda"."""
    return built("_cuda")


def checked(
    name: str,
    tensor: Tensor,
    *,
    dtypes: Sequence[torch.dtype] = FLOATS,
    shape: Sequence[int] | None = None,
    device: str = "cpu",
    index: int | None = None,
    strided: bool = False,
    axes: int | None = None,
) -> int:
    """The address of the first number of a tensor that the extensions can take.

    Args:
        device, index: where it must be; without an index on any of the kind.
        strided: only the numbers of the last axis need lie together.
        axes: how many the tensor must have.
    Raises: ValueError that begins with `name`, for another dtype, shape or device, and for a tensor
        that is not contiguous.
    """
    if tensor.dtype not in dtypes:
        known = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} must be {known}, got {str(tensor.dtype).removeprefix('torch.')}")
    if shape is not None and tensor.shape != torch.Size(shape):
        raise ValueError(f"{name} must be {list(shape)}, got {list(tensor.shape)}")
    if axes is not None and tensor.dim() != axes:
        raise ValueError(f"{name} must have {axes} axes, got {list(tensor.shape)}")
    if tensor.device.type != device:
        raise ValueError(f"{name} must be on {device}, got {tensor.device}")
    if index is not None and tensor.get_device() != index:
        raise ValueError(
            f"{name} must be on {device}:{index}, the current one, got {tensor.device}"
        )
    if strided and (tensor.stride(-1) == 1 or tensor.size(-1) <= 1):
        return tensor.data_ptr()
    if not tensor.is_contiguous():
        strides = list(tensor.stride())
        raise ValueError(f"{name} must be contiguous, got {list(tensor.shape)} strides {strides}")
    return tensor.data_ptr()
