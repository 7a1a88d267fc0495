"""The tests of emulated kernels once more, on a GPU: norms, activations, the residual stream."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.gpu.here import need_gpu, on_gpu
from tests.unit.cuda.test_layers import *  # noqa: F403

need_gpu()
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def module() -> Iterator[ModuleType]:
    with on_gpu() as found:
        yield found
