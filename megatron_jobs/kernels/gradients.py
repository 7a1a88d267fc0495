"""Weight gradients added to the fp32 sums of a batch, in one pass over memory."""

import torch
from torch import Tensor

from megatron_jobs.kernels import cuda_lists
from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.native import CODES, checked, cpu


def add_gradient(total: Tensor, gradient: Tensor, *, first: bool = False) -> None:
    """total += gradient.

    On CUDA torch's addition is one pass as well, and is taken.

    Args:
        total: fp32, contiguous; written to.
        gradient: fp32, bf16 or fp16, of the same shape.
        first: total = gradient, whatever total was before.
    Raises: ValueError for a total of another dtype or shape, or with gaps.
    """
    place = checked("total", total, dtypes=(torch.float32,), shape=gradient.shape,
                    device=gradient.device.type)  # fmt: skip
    if gradient.is_cuda or form_of("gradients", gradient) == "reference":
        add_gradient_reference(total, gradient, first=first)
        return
    gradient = gradient.contiguous()
    cpu().add_gradient(
        gradient.data_ptr(),
        place,
        numbers=gradient.numel(),
        dtype=CODES[gradient.dtype],
        first=first,
        threads=torch.get_num_threads(),
    )


@torch.no_grad()
def add_gradient_reference(total: Tensor, gradient: Tensor, *, first: bool = False) -> None:
    """The same by torch, which on the CPU makes an fp32 copy of the gradient."""
    if first:
        total.copy_(gradient)
    else:
        total.add_(gradient)


def add_product(total_OI: Tensor, dy_TO: Tensor, x_TI: Tensor, *, first: bool = False) -> None:
    """total += dy^T x, a weight's gradient: on CUDA in one product, of cuBLAS.

    Args:
        total_OI: fp32 [O, I], contiguous; written to.
        dy_TO, x_TI: [T, O] and [T, I], of one dtype.
        first: total = dy^T x, whatever total was before.
    Raises: ValueError for a total of another dtype or shape, or with gaps.
    """
    if dy_TO.is_cuda and form_of("gradients", dy_TO, x_TI) == "cuda":
        cuda_lists.add_product(dy_TO.contiguous(), x_TI.contiguous(), total_OI, first=first)
        return
    add_gradient(total_OI, dy_TO.t() @ x_TI, first=first)
