"""The tests of emulated kernels once more, on a GPU: heads, losses, experts, lists."""

from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.gpu.here import need_gpu, on_gpu
from tests.unit.cuda.test_heads_and_lists import *  # noqa: F403

need_gpu()
del test_weight_gradients_are_added_by_the_cublas_that_is_loaded  # noqa: F821 that of a stand-in
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def module() -> Iterator[ModuleType]:
    with on_gpu() as found:
        yield found
