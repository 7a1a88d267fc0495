"""Lists of tensors on CUDA: AdamW, norm, scale, check (see `adam`), and sums of weight gradients.

Some hundred chunks of tensors go with each launch, and nothing is waited for. Sums are taken of
chunks that depend on the sizes alone: two runs give the same bits.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from megatron_jobs.errors import UserError
from megatron_jobs.kernels.cuda import at, like, numbers, place, scratch
from megatron_jobs.kernels.native import CODES, FLOATS, cuda

if TYPE_CHECKING:
    from megatron_jobs.kernels.adam import AdamRule, AdamTensors

Tensors = Sequence[Tensor]
FP32 = (torch.float32,)


def adam_step(
    tensors: AdamTensors,
    rule: AdamRule,
    *,
    factor: Tensor | None = None,
    stop: Tensor | None = None,
) -> None:
    """`adam.adam_step`.

    Args:
        factor: fp32 [1] on the GPU, a further factor of the gradients.
        stop: fp32 [1] on the GPU: nothing is written unless it is 0, as `find_bad` leaves it.
    """
    shapes = tensors.parameters
    lists = {
        "parameters": (tensors.parameters, FP32),
        "gradients": (tensors.gradients, dtypes_of(tensors.gradients)),
        "first": (tensors.first, FP32),
        "second": (tensors.second, FP32),
        "rounded": (tensors.rounded, dtypes_of(tensors.rounded)),
    }
    addresses = [
        [
            at(f"{name}[{n}]", tensor, dtypes=dtypes, shape=shapes[n].shape)
            for n, tensor in enumerate(every)
        ]
        for name, (every, dtypes) in lists.items()
    ]
    one: dict[str, Any] = {"dtypes": FP32, "shape": (1,)}
    cuda().adam_step(
        *addresses,
        sizes=[tensor.numel() for tensor in shapes],
        dtype=CODES[tensors.gradients[0].dtype],
        rounded_dtype=CODES[tensors.rounded[0].dtype] if tensors.rounded else 0,
        factor_at=at("factor", factor, **one),
        stop=at("stop", stop, **one),
        **asdict(rule),
        **place(shapes[0]),
    )


def norm_of(tensors: Tensors) -> Tensor:
    """fp32 [1]: the root of the sum of squares of all numbers, which are of one dtype."""
    sizes = [tensor.numel() for tensor in tensors]
    found = tensors[0].new_empty(1, dtype=torch.float64)
    partial = scratch(tensors[0], max(1, cuda().squares_scratch(sizes)))
    cuda().sum_of_squares(
        *addressed(tensors), partial.data_ptr(), found.data_ptr(), **rule(tensors)
    )
    return found.sqrt().float()


def scale_all(
    tensors: Tensors, factor: float, *, by: Tensor | None = None, bad: Tensor | None = None
) -> None:
    """Multiply all numbers, of one dtype, in place.

    Args:
        by: fp32 [1] on the GPU, a further factor.
        bad: fp32 [1] on the GPU, becomes 1 if any number was infinite or NaN before.
    """
    one: dict[str, Any] = {"dtypes": FP32, "shape": (1,)}
    places = at("by", by, **one), at("bad", bad, **one)
    cuda().scale_all(*addressed(tensors), *places, factor=factor, **rule(tensors))


def find_bad(tensors: Tensors, bad: Tensor) -> None:
    """Set `bad`, fp32 [1] on the GPU, to 1 if any number, all of one dtype, is infinite or NaN."""
    place_of_bad = at("bad", bad, dtypes=FP32, shape=(1,))
    cuda().find_bad(*addressed(tensors), place_of_bad, **rule(tensors))


def add_product(dy_TO: Tensor, x_TI: Tensor, sum_OI: Tensor, *, first: bool = False) -> None:
    """sum += dy^T x: what apex's `wgrad_gemm_accum_fp32` and `_fp16` do, by torch's own cuBLAS.

    Args:
        dy_TO, x_TI: [T, O] and [T, I], of one dtype.
        sum_OI: [O, I], fp32 or of the same dtype; written to.
        first: sum = dy^T x, whatever it was before.
    Raises: UserError where torch has loaded no cuBLAS.
    """
    take_cublas()
    rows, outputs = dy_TO.shape
    inputs = x_TI.size(-1)
    cuda().add_product(
        at("dy", dy_TO),
        at("x", x_TI, **like(dy_TO, shape=(rows, inputs))),
        at("sum", sum_OI, dtypes=(torch.float32, dy_TO.dtype), shape=(outputs, inputs)),
        rows=rows,
        outputs=outputs,
        inputs=inputs,
        sum_dtype=CODES[sum_OI.dtype],
        first=first,
        **numbers(dy_TO),
    )


@functools.cache
def take_cublas() -> None:
    """Find the cuBLAS of this process: torch loads one before its first product."""
    path = cublas_among(Path("/proc/self/maps").read_text())
    if path is None:
        raise UserError("kernels.gradients: torch has loaded no libcublas.so; take reference there")
    cuda().use_cublas(path)


def cublas_among(maps: str) -> str | None:
    """The file of cuBLAS in what /proc/self/maps says."""
    found = re.search(r"(/\S*/libcublas\.so\S*)$", maps, re.MULTILINE)
    return found and found[1]


def dtypes_of(tensors: Tensors) -> tuple[torch.dtype, ...]:
    """The dtype that all tensors of a list must have: that of the first."""
    return (tensors[0].dtype,) if tensors and tensors[0].dtype in FLOATS else FLOATS


def addressed(tensors: Tensors) -> tuple[list[int]]:
    """Of the first numbers; tensors that are not as they must be are named by their place."""
    kinds = dtypes_of(tensors)
    return ([at(f"tensors[{n}]", tensor, dtypes=kinds) for n, tensor in enumerate(tensors)],)


def rule(tensors: Tensors) -> dict[str, Any]:
    """Sizes, dtype and stream, as the extension takes them."""
    return {"sizes": [tensor.numel() for tensor in tensors]} | numbers(tensors[0])
