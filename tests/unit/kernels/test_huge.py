"""Tensors of more numbers than 32 bits count: the last row is computed as it is by itself."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.kernels.activation import gelu
from megatron_jobs.kernels.norm import rms_norm
from tests.fused import chosen

ROWS, COLUMNS = (1 << 15) + 1, 1 << 16
BIAS = torch.randn(COLUMNS, generator=torch.Generator().manual_seed(0)).bfloat16()
KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: rms_norm(x, BIAS),
    "activation": lambda x: gelu(x, BIAS),
}


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_last_row_is_reached(kernel: str) -> None:
    x = torch.zeros(ROWS, COLUMNS, dtype=torch.bfloat16)  # pages of zeros take no memory
    assert x.numel() > 1 << 31
    x[-1] = torch.randn(COLUMNS, generator=torch.Generator().manual_seed(1)).bfloat16()
    work = KERNELS[kernel]
    with chosen(**{kernel: "fused"}), torch.no_grad():  # type: ignore[arg-type]
        found = work(x)
        rows = work(x[[0, -1]])
    assert_close(found[[0, -1]], rows, rtol=0, atol=0)
    with chosen(**{kernel: "reference"}), torch.no_grad():  # type: ignore[arg-type]
        assert_close(found[-1:], work(x[-1:]), rtol=1e-2, atol=1e-2)
