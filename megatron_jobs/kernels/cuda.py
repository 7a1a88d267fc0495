"""What the forms for CUDA share: tensors and the stream as `megatron_jobs._cuda` takes them.

Work is put on torch's current stream and not waited for, as torch's own. Outputs and scratch are of
torch's allocator, which keeps them until that stream is past their last use.
"""

from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels.native import CODES, checked, cuda


def at(name: str, tensor: Tensor | None, **rules: Any) -> int:
    """As `checked`, for tensors on the current GPU, where the work will be; 0 for None."""
    if tensor is None:
        return 0
    if cuda().EMULATED:
        return checked(name, tensor, **rules)
    return checked(name, tensor, device="cuda", index=torch.cuda.current_device(), **rules)


def like(tensor: Tensor, **rules: Any) -> dict[str, Any]:
    """Rules of `at`: the dtype of `tensor`, its shape unless another is given."""
    return {"dtypes": (tensor.dtype,), "shape": tensor.shape} | rules


def place(tensor: Tensor) -> dict[str, int]:
    """The stream on which work on `tensor` goes: that of the current GPU, where `at` found it."""
    if cuda().EMULATED:
        return {"stream": 0}
    return {"stream": torch.cuda.current_stream(tensor.device).cuda_stream}


def numbers(tensor: Tensor) -> dict[str, int]:
    """The stream, and the dtype by its code."""
    return place(tensor) | {"dtype": CODES[tensor.dtype]}


def scratch(tensor: Tensor, count: int) -> Tensor:
    """Empty fp32 [count], where `tensor` is."""
    return tensor.new_empty(count, dtype=torch.float32)
