"""Turned columns on the CPU: every machine, number of threads, dtype and layout of the heads."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.native import built, cpu
from megatron_jobs.kernels.rope import rotate, rotate_reference, turns
from megatron_jobs.kernels.rope_ops import rope
from tests.fused import MACHINES

if built("_kernels") is None:
    pytest.skip("megatron_jobs._kernels is not built", allow_module_level=True)

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 3e-2, torch.float16: 4e-3}
SHAPES = [(5, 2, 3, 4, 8), (3, 1, 2, 32, 64), (7, 2, 1, 13, 31), (0, 2, 3, 2, 4), (3, 2, 0, 2, 4)]
"""S, B, N, F, D."""


@pytest.fixture(autouse=True)
def fused() -> Iterator[None]:
    choose(KernelsConfig(rope="fused"))
    yield
    choose(KernelsConfig())
    cpu().choose_machine("")


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Heads that are every third part of a wider tensor, and angles."""
    positions, sequences, heads, frequencies, columns = shape
    draw = torch.Generator().manual_seed(6)
    wide = torch.randn(positions, sequences, 3 * heads, columns + 3, generator=draw).to(dtype)
    angles = 9 * torch.randn(positions, frequencies, generator=draw)
    return wide[:, :, heads : 2 * heads, 1 : columns + 1], angles


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_complex_numbers(
    shape: tuple[int, ...], interleaved: bool, dtype: torch.dtype, machine: str
) -> None:
    cpu().choose_machine(machine)
    x, angles = drawn(shape, dtype)
    pairs = {"magnitude": 1.3, "interleaved": interleaved}
    cos, sin = (table.to(dtype) for table in turns(angles, **pairs))  # type: ignore[arg-type]
    x.requires_grad_()
    found = rotate(x, cos, sin, interleaved=interleaved)
    assert (found.dtype, found.is_contiguous()) == (dtype, True)
    bound = {"rtol": TOLERANCE[dtype], "atol": 4 * TOLERANCE[dtype]}
    expected = rotate_reference(x.detach().double(), angles, **pairs)  # type: ignore[arg-type]
    assert_close(found.double(), expected, **bound)
    dy = torch.randn(found.shape[::-1], generator=torch.Generator().manual_seed(2)).to(dtype)
    dy = dy.permute(3, 2, 1, 0)  # columns of a gradient need not lie together
    found.backward(dy)
    back = rotate_reference(dy.double(), -angles, **pairs)  # type: ignore[arg-type]
    assert x.grad is not None
    assert_close(x.grad.double(), back, **bound)


@pytest.mark.parametrize("interleaved", [False, True])
def test_threads_change_no_bit(interleaved: bool) -> None:
    x, angles = drawn((64, 2, 8, 32, 96), torch.float32)
    cos, sin = turns(angles, magnitude=1.0, interleaved=interleaved)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(rotate(x, cos, sin, interleaved=interleaved))
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_large_heads_go_past_the_caches() -> None:
    x, angles = drawn((300, 2, 64, 32, 64), torch.float32)
    cos, sin = turns(angles, magnitude=1.0, interleaved=False)
    found = rotate(x, cos, sin)
    assert_close(found, rotate_reference(x, angles), rtol=1e-5, atol=1e-5)


def test_the_operator_is_whole() -> None:
    x, angles = drawn((3, 2, 2, 2, 6), torch.float32)
    cos, sin = turns(angles, magnitude=1.0, interleaved=False)
    for inverse in (False, True):
        torch.library.opcheck(rope, (x.clone().requires_grad_(), cos, sin, False, inverse))


REFUSED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    r"^x must be float32 or bfloat16 or float16, got float64$": lambda x, cos, sin: rope(
        x.double(), cos, sin, False, False
    ),
    r"^x must be contiguous, got \[3, 2, 2, 4\] strides \[16, 8, 1, 2\]$": lambda x, cos, sin: rope(
        x.mT.contiguous().mT, cos, sin, False, False
    ),
    r"^cos must be \[3, 4\], got \[2, 4\]$": lambda x, cos, sin: rope(
        x, cos[1:], sin, False, False
    ),
    r"^sin must be \[3, 4\], got \[3, 2\]$": lambda x, cos, sin: rope(
        x, cos, sin[:, 2:], False, False
    ),
    r"^turned must be even and at most 4, got 6$": lambda x, cos, sin: rope(
        x, cos.repeat(1, 2)[:, :6].clone(), sin.repeat(1, 2)[:, :6].clone(), False, False
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_name_the_tensor(message: str) -> None:
    x, angles = torch.ones(3, 2, 2, 4), torch.ones(3, 2)
    with pytest.raises(ValueError, match=message):
        REFUSED[message](x, *turns(angles, magnitude=1.0, interleaved=False))


def test_tables_of_other_lengths_are_refused() -> None:
    x, table = torch.ones(3, 2, 2, 4), torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"^cos must be \[3, 4\], got \[2, 4\]$"):
        rotate(x, table[:2], table)
    with pytest.raises(ValueError, match=r"^sin must be \[3, 4\], got \[4, 4\]$"):
        rotate(x, table, torch.ones(4, 4))
