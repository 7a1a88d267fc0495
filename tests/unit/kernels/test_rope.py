"""Turned columns against complex numbers. Shapes as in the module."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.kernels.rope import rotate, rotate_reference, turns


def drawn(positions: int, frequencies: int, columns: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(6)
    x = torch.randn(positions, 2, 3, columns, generator=draw)
    return x, 9 * torch.randn(positions, frequencies, generator=draw)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("positions", "frequencies", "columns"), [(5, 4, 8), (1, 1, 2), (7, 3, 11), (0, 2, 4)]
)
def test_columns_turn_as_complex_numbers(
    positions: int, frequencies: int, columns: int, interleaved: bool
) -> None:
    x, angles = drawn(positions, frequencies, columns)
    pair = {"magnitude": 1.3, "interleaved": interleaved}
    cos, sin = turns(angles, **pair)  # type: ignore[arg-type]
    expected = rotate_reference(x, angles, **pair)  # type: ignore[arg-type]
    assert_close(rotate(x, cos, sin, interleaved=interleaved), expected)


def test_a_quarter_turn() -> None:
    """(a, b) becomes (-b, a): columns half a head apart, or neighbours."""
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    cos, sin = torch.zeros(1, 4), torch.ones(1, 4)
    assert rotate(x, cos, sin).flatten().tolist() == [-3, -4, 1, 2]
    assert rotate(x, cos, sin, interleaved=True).flatten().tolist() == [-2, 1, -4, 3]


@pytest.mark.parametrize("interleaved", [False, True])
def test_gradient(interleaved: bool) -> None:
    x, angles = drawn(3, 2, 5)
    cos, sin = turns(angles.double(), magnitude=0.7, interleaved=interleaved)
    inputs = [x.double().requires_grad_()]
    assert torch.autograd.gradcheck(lambda t: rotate(t, cos, sin, interleaved=interleaved), inputs)


def test_more_angles_than_columns_are_refused() -> None:
    x, angles = drawn(3, 2, 3)
    cos, sin = turns(angles, magnitude=1.0, interleaved=False)
    with pytest.raises(ValueError, match=r"^4 columns cannot turn in a head of 3$"):
        rotate(x, cos, sin)
