"""Additions to the residual stream: against fp64, against megatron-core's, and their messages."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels.dispatch import FallbackWarning, choose
from megatron_jobs.kernels.native import built, cpu
from megatron_jobs.kernels.residual import bias_add_reference, bias_dropout_add
from megatron_jobs.kernels.residual_ops import add_residual, bias_gradient
from megatron_jobs.parallel.device import install
from tests.fused import MACHINES

install()  # before megatron.core is imported
if built("_kernels") is None:
    pytest.skip("megatron_jobs._kernels is not built", allow_module_level=True)

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def fused() -> Iterator[None]:
    choose(KernelsConfig(residual="fused"))
    yield
    choose(KernelsConfig())
    cpu().choose_machine("")


def drawn(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    x, residual = torch.randn(2, *shape, generator=draw).to(dtype)
    return x, torch.randn(shape[-1], generator=draw).to(dtype), residual


def added_by_megatron_core(
    output: tuple[Tensor, Tensor], residual: Tensor, dropout: float
) -> Tensor:
    from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add

    added: Tensor = get_bias_dropout_add(training=True, fused=False)(output, residual, dropout)
    return added


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3, 37), (0, 5), (101, 64)])
def test_values_and_gradients_are_those_of_fp64(
    shape: tuple[int, ...], dtype: torch.dtype, machine: str
) -> None:
    cpu().choose_machine(machine)
    given = [t.requires_grad_() for t in drawn(shape, dtype)]
    found = bias_dropout_add(*given)
    expected = bias_add_reference(*(t.detach() for t in given))
    assert_close(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    dy = torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    found.backward(dy)
    x, bias, residual = (t.grad for t in given)
    assert bias is not None
    assert_close(x, dy, rtol=0, atol=0)
    assert_close(residual, dy, rtol=0, atol=0)
    sums = dy.double().flatten(0, -2).sum(0)
    assert_close(bias.double(), sums, rtol=TOLERANCE[dtype], atol=8 * TOLERANCE[dtype])


def test_fp32_is_bit_for_bit_what_megatron_core_adds() -> None:
    x, bias, residual = drawn((31, 67), torch.float32)
    theirs = added_by_megatron_core((x, bias), residual, 0.0)
    assert torch.equal(bias_dropout_add(x, bias, residual), theirs)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_dropout_draws_what_megatron_core_draws(dtype: torch.dtype) -> None:
    choose(KernelsConfig())
    x, bias, residual = (t.repeat_interleave(40, 0) for t in drawn((31, 67), dtype))
    bias = bias[:67]
    torch.manual_seed(5)
    theirs = added_by_megatron_core((x, bias), residual, 0.3)
    torch.manual_seed(5)
    with pytest.warns(FallbackWarning, match="plain torch, for dropout, whose random numbers"):
        assert torch.equal(bias_dropout_add(x, bias, residual, dropout=0.3), theirs)


def test_a_wider_stream_stays_wide() -> None:
    choose(KernelsConfig(residual="reference"))
    x, bias, residual = drawn((5, 6), torch.bfloat16)
    wide = residual.float()
    theirs = added_by_megatron_core((x, bias), wide, 0.0)
    assert torch.equal(bias_dropout_add(x, bias, wide), theirs)
    assert torch.equal(bias_dropout_add(x, None, wide), x.float() + wide)


def test_threads_change_no_bit() -> None:
    given = drawn((999, 131), torch.float32)
    sums, values, before = [], [], torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        values.append(add_residual(*given))
        sums.append(bias_gradient(given[0]))
    torch.set_num_threads(before)
    assert all(torch.equal(values[0], other) for other in values[1:])
    assert all(torch.equal(sums[0], other) for other in sums[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_sums_that_go_past_the_caches_are_the_same(dtype: torch.dtype) -> None:
    """Of 8 MiB and more; parts of them are stored as ever. 1008 numbers end between cache lines."""
    for columns in (1024, 1008):
        x, bias, residual = drawn((4352, columns), dtype)
        parts = [
            add_residual(a, bias, b) for a, b in zip(x.split(64), residual.split(64), strict=True)
        ]
        assert torch.equal(add_residual(x, bias, residual), torch.cat(parts))


def test_the_operators_are_whole() -> None:
    given = [t.requires_grad_() for t in drawn((3, 5), torch.float32)]
    torch.library.opcheck(add_residual, tuple(given))
    torch.library.opcheck(bias_gradient, (given[0].detach(),))


def test_refusals_name_the_tensor() -> None:
    x, bias, residual = drawn((3, 5), torch.float32)
    with pytest.raises(ValueError, match=r"^bias must be \[5\], got \[4\]$"):
        bias_dropout_add(x, bias[1:], residual)
    with pytest.raises(ValueError, match=r"^residual must be \[3, 5\], got \[2, 5\]$"):
        bias_dropout_add(x, bias, residual[1:])
    with pytest.raises(ValueError, match=r"^residual must be float32, got bfloat16$"):
        add_residual(x, bias, residual.bfloat16())
    with pytest.raises(ValueError, match=r"^dy must be contiguous, got \[5, 3\] strides \[1, 5\]$"):
        bias_gradient(x.T)
