"""Weight gradients that megatron-core's linear layers add to fp32 sums where they are made.

It calls apex's extension for that, `fused_weight_gradient_mlp_cuda`; `kernels.gradients` does the
same here. T tokens, O outputs, I inputs.
"""

import torch
from megatron.core.tensor_parallel import layers
from torch import Tensor

from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.gradients import add_product
from megatron_jobs.parallel.device import engine_device, has_gpu


class Products:
    """In the place of apex's module, with its names."""

    @staticmethod
    def wgrad_gemm_accum_fp32(x_TI: Tensor, dy_TO: Tensor, sum_OI: Tensor) -> None:
        """sum += dy^T x; = where `Sums` says that nothing of this step is in it."""
        begins = getattr(sum_OI, "begins", None)
        add_product(sum_OI, dy_TO, x_TI, first=begins is not None and begins())

    wgrad_gemm_accum_fp16 = wgrad_gemm_accum_fp32


def join_products() -> bool:
    """Whether layers that are built now add their gradients themselves: on CUDA, by our kernel."""
    joined = makes_products()
    if joined:
        layers.fused_weight_gradient_mlp_cuda = Products
        layers._grad_accum_fusion_available = True
    return joined


def makes_products() -> bool:
    """Whether the kernel is there for this device and is asked for."""
    if not has_gpu():
        return False
    return form_of("gradients", torch.empty(0, device=engine_device())) == "cuda"
