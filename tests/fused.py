"""Fused kernels in tests: every machine's code, every number of threads, plain torch beside it."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from megatron_jobs import _kernels
from megatron_jobs.config.kernels import Choice, KernelsConfig
from megatron_jobs.kernels.dispatch import choose

MACHINES_OF_ATTENTION = tuple(_kernels.machines())
MACHINES = tuple(name for name in MACHINES_OF_ATTENTION if name != "avx512_bf16")
"""All others have no code of their own for the last."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Of one result, beside 1 + its size: what fp32 sums and one rounding to the dtype may cost."""


@contextlib.contextmanager
def machine(name: str) -> Iterator[None]:
    """The code for this machine runs."""
    _kernels.choose_machine(name)
    try:
        yield
    finally:
        _kernels.choose_machine("")


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """torch, and with it the kernels, have so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def chosen(**forms: Choice) -> Iterator[None]:
    """Kernels take these forms; the others are `auto`."""
    choose(KernelsConfig(**forms))
    try:
        yield
    finally:
        choose(KernelsConfig())


def drawn(*shapes: tuple[int, ...], dtype: torch.dtype, seed: int = 1) -> list[Tensor]:
    """Normal numbers, to be differentiated by."""
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw).to(dtype).requires_grad_() for shape in shapes]


def far(found: Tensor, exact: Tensor) -> float:
    """The largest |found - exact| / (1 + |exact|)."""
    assert found.shape == exact.shape, (found.shape, exact.shape)
    apart = (found.detach().double() - exact.detach()).abs() / (1 + exact.detach().abs())
    return float(apart.max()) if apart.numel() else 0.0
