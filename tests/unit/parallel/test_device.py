"""The stand-in answers as a GPU would; nothing here is asked of a machine that has one."""

import pytest
import torch
from torch import Tensor

from megatron_jobs.parallel.device import engine_device, has_gpu, install, peak_bytes

pytestmark = pytest.mark.skipif(has_gpu(), reason="a GPU needs no stand-in")


@pytest.fixture(autouse=True)
def _installed() -> None:
    install()
    install()


@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0, torch.device("cuda", 1)])
def test_tensors_asked_for_on_a_gpu_are_on_the_cpu(device: object) -> None:
    for made in (
        torch.zeros(2, device=device),
        torch.empty(2, device=device, pin_memory=True),
        torch.ones(2).to(device),
        torch.ones(2).new_zeros(3, device=device),
    ):
        assert made.device.type == "cpu"


def test_other_calls_are_unchanged() -> None:
    assert torch.ones(2).to(torch.float64).dtype == torch.float64
    assert torch.zeros(2, device="meta").device.type == "meta"
    assert torch.ones(2).type(torch.int32).dtype == torch.int32


def test_seeds_reach_the_generator_at_once() -> None:
    cuda = torch.cuda
    cuda.manual_seed(5)
    state = cuda.get_rng_state()
    first = torch.rand(3)
    cuda.set_rng_state(state)
    assert torch.equal(first, torch.rand(3))
    torch.manual_seed(5)
    assert torch.equal(first, torch.rand(3))


def test_type_names_are_those_of_a_gpu() -> None:
    assert Tensor.type(torch.ones(1)) == "torch.cuda.FloatTensor"


def test_engine_device_and_memory() -> None:
    assert engine_device() == torch.device("cpu")
    assert peak_bytes() > 2**20
