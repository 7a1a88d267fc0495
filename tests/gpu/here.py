"""A GPU for tests, or the reason why there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest
import torch

from megatron_jobs.kernels import native


def need_gpu() -> None:
    """Skip the module that calls it, with the reason."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device", allow_module_level=True)
    if native.MODULES["_cuda"] is None:
        pytest.skip("megatron_jobs._cuda is not built", allow_module_level=True)


@contextmanager
def on_gpu() -> Iterator[ModuleType]:
    """Tensors are made on the GPU unless they say otherwise."""
    torch.set_default_device("cuda")
    try:
        module = native.MODULES["_cuda"]
        assert module is not None
        yield module
    finally:
        torch.set_default_device("cpu")
