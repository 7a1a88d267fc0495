"""What every layer's kernel must bear: odd sizes, odd places in memory, numbers that are none.

R rows, H columns; the kernels are norm, activation, residual, rope and softmax.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.kernels.activation import swiglu
from megatron_jobs.kernels.activation_ops import activation, activation_backward
from megatron_jobs.kernels.causal_attention_ops import attention
from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.norm import layer_norm, rms_norm
from megatron_jobs.kernels.norm_ops import norm_backward
from megatron_jobs.kernels.residual import bias_dropout_add
from megatron_jobs.kernels.rope import rotate, rotate_reference, turns
from megatron_jobs.kernels.rope_ops import rope
from megatron_jobs.kernels.softmax import masked_softmax
from megatron_jobs.kernels.softmax_ops import softmax, softmax_backward
from tests.fused import DTYPES, MACHINES, chosen, machine, threads

ROWS, COLUMNS = 700, 150
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "norm": lambda x: layer_norm(x, x[0], x[1]),
    "activation": lambda x: swiglu(x, x[0]),
    "residual": lambda x: bias_dropout_add(x, x[0], x),
    "rope": lambda x: rotate(x[:, None, None], x.detach()[:, :64], x.detach()[:, 1:65]),
    "softmax": lambda x: masked_softmax(x[None, None], scale=2.0, cap=3.0, causal=True),
}


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(dtype)


def both(call: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """What a call gives, and the gradient of x."""
    x = x.detach().requires_grad_()
    y = call(x)
    (dx,) = torch.autograd.grad(y, x, y.detach().roll(1, 0))
    return y.detach(), dx


def same(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> bool:
    """Bit for bit; early queries of the softmax see nothing, and are NaN."""
    pairs = zip(found, wanted, strict=True)
    return all(torch.equal(a.nan_to_num(9.0), b.nan_to_num(9.0)) for a, b in pairs)


@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("kernel", CALLS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit_on_any_machine(dtype: torch.dtype, kernel: str, name: str) -> None:
    x = drawn(ROWS, COLUMNS, dtype=dtype)
    with chosen(**{kernel: "fused"}), machine(name):  # type: ignore[arg-type]
        wanted = both(CALLS[kernel], x)
        for count in (2, 3):
            with threads(count):
                assert same(both(CALLS[kernel], x), wanted)


@pytest.mark.parametrize("kernel", CALLS)
def test_tensors_begin_anywhere(kernel: str) -> None:
    """No first number need lie where vectors do."""
    for dtype in DTYPES:
        x = drawn(ROWS, COLUMNS, dtype=dtype)
        with chosen(**{kernel: "fused"}):  # type: ignore[arg-type]
            wanted = both(CALLS[kernel], x)
            for offset in (1, 5):
                moved = torch.empty(x.numel() + offset, dtype=dtype)[offset:].view_as(x).copy_(x)
                assert same(both(CALLS[kernel], moved), wanted)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kernel", ["norm", "rope", "softmax"])
def test_numbers_that_are_none_stay_where_torch_has_them(kernel: str, odd: float) -> None:
    """Rows without them are what they were; elsewhere as many, in the same places."""
    x = drawn(40, COLUMNS)
    x[7, 3] = x[9, 60] = odd
    call = CALLS[kernel] if kernel != "norm" else lambda x: rms_norm(x, x[0])
    with chosen(**{kernel: "reference"}):  # type: ignore[arg-type]
        wanted = call(x)
    with chosen(**{kernel: "fused"}):  # type: ignore[arg-type]
        assert_close(call(x), wanted, equal_nan=True)


def test_a_query_that_sees_nothing_has_no_gradient() -> None:
    """Its weights are NaN; but a row that a score made NaN keeps its NaN."""
    x, allowed = drawn(1, 1, 4, 40), torch.ones(4, 40, dtype=torch.bool)
    allowed[1] = False
    x[..., 2, 0] = torch.nan
    dw = drawn(1, 1, 4, 40)
    for form in ("reference", "fused"):
        given = x.clone().requires_grad_()
        with chosen(softmax=form):
            (dx,) = torch.autograd.grad(masked_softmax(given, allowed=allowed), given, dw)
        assert torch.equal(dx[0, 0, 1], torch.zeros(40))
        assert dx[0, 0, 2].isnan().all()
        assert dx[0, 0, [0, 3]].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_plain_torch_rounds_once(dtype: torch.dtype) -> None:
    """As the kernels: half a unit in the last place, and what fp32 costs."""
    half = torch.finfo(dtype).eps / 2 + 1e-5
    x = drawn(16, 2, 3, 64, dtype=dtype)
    angles = torch.zeros(16, 32) + torch.pi / 4
    cos, sin = (table.to(dtype).float() for table in turns(angles, magnitude=1, interleaved=False))
    exact_angles = torch.atan2(sin, cos)[:, :32]
    exact = rotate_reference(
        x.double(), exact_angles, magnitude=float((cos**2 + sin**2)[0, 0].sqrt())
    )
    large = torch.tensor([60000.0, 59968.0, 100.0]).to(dtype)[None, None, None]
    weights = (large.double() * 2).softmax(-1)
    for form in ("reference", "fused"):
        with chosen(rope=form, softmax=form):
            found = rotate(x, cos.to(dtype), sin.to(dtype))
            assert_close(found.double(), exact, rtol=half, atol=2e-6)
            found = masked_softmax(large, scale=2.0)
            assert_close(found.double(), weights, rtol=half, atol=1e-7)


X, ONE = torch.ones(6, 5), torch.ones(5)
HEADS, TABLE = torch.ones(3, 2, 2, 4), torch.ones(3, 4)
REFUSED: dict[str, Callable[[], object]] = {
    r"^mean must be \[6\], got \[4\]$": lambda: norm_backward(
        X, X, ONE, torch.ones(4), torch.ones(6), None, False, True
    ),
    r"^x must have gate and value columns, got \[6, 5\]$": lambda: activation(X, None, 0, True),
    r"^x must have gate and value columns, got \[4, 5\]$": lambda: activation_backward(
        torch.ones(4, 2), X[:4], None, 0, True
    ),
    r"^x must have gate and value columns, got \[\]$": lambda: swiglu(torch.tensor(1.0)),
    r"^scores must have 4 axes, got \[6, 5\]$": lambda: softmax(X, None, 1.0, 0.0, False),
    r"^scores must have 4 axes, got \[5\]$": lambda: softmax_backward(
        ONE, ONE, ONE, 1.0, 0.0, False
    ),
    r"^cap must be positive, got -1.0; None is no cap$": lambda: masked_softmax(X, cap=-1.0),
    r"^x must have 4 axes, got \[3, 2, 4\]$": lambda: rope(
        HEADS[:, 0].clone(), TABLE, TABLE, False, False
    ),
    r"^x must be \[S, B, N, D\], got \[3, 2, 4\]$": lambda: rotate(HEADS[:, 0], TABLE, TABLE),
    r"^columns turn in pairs, got 3$": lambda: rotate(HEADS, TABLE[:, :3], TABLE[:, :3]),
    r"^q must have 4 axes, got \[3, 2, 4\]$": lambda: attention(
        HEADS[:, 0].clone(), HEADS, HEADS, None, 1.0
    ),
    r"^dropout must be 0 to 1, got -1$": lambda: bias_dropout_add(X, ONE, X, dropout=-1),
    r"^x must have columns, got a single number$": lambda: rms_norm(ONE[0], ONE[0]),
    r"^x must have columns, got a single number.?$": lambda: bias_dropout_add(
        ONE[0], ONE[0], ONE[0]
    ),
    r"^kernels.norm: got no tensor; ": lambda: form_of("norm", None),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refusals_say_what_is_wrong(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()
