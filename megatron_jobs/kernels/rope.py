"""Rotary position embedding: pairs of columns are turned by angles that grow with the position.

Axis letters: S positions, B sequences, N heads, D columns of a head, R of these that are turned,
F = R / 2 frequencies.
"""

import torch
from torch import Tensor

from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.rope_ops import rope

SMALL = 1 << 14
"""Numbers below which plain torch is faster: a call forward and backward costs 66 us, not 48."""


def rotate(x_SBND: Tensor, cos_SR: Tensor, sin_SR: Tensor, *, interleaved: bool = False) -> Tensor:
    """Turn pairs of the first R columns of each head; the others stay.

    Args:
        x_SBND: [S, B, N, D].
        cos_SR, sin_SR: [S, R] as `turns` gives them, the dtype of x.
        interleaved: whether a pair is two neighbours, not two columns that lie R / 2 apart.
    Returns: [S, B, N, D], the dtype of x.
    Raises: ValueError when x has other axes, when there are more angles than columns or an odd
        number of them, or not a row for each position.
    Source: Su et al. 2021, eq. 34, arXiv:2104.09864.
    """
    if x_SBND.dim() != 4:
        raise ValueError(f"x must be [S, B, N, D], got {list(x_SBND.shape)}")
    turned = cos_SR.shape[-1] if cos_SR.dim() else 0
    if turned % 2:
        raise ValueError(f"columns turn in pairs, got {turned}")
    if turned > x_SBND.size(-1):
        raise ValueError(f"{turned} columns cannot turn in a head of {x_SBND.size(-1)}")
    for name, table_SR in (("cos", cos_SR), ("sin", sin_SR)):
        if table_SR.shape != (x_SBND.size(0), turned):
            raise ValueError(
                f"{name} must be [{x_SBND.size(0)}, {turned}], got {list(table_SR.shape)}"
            )
    if _is_fused(x_SBND, cos_SR, sin_SR):
        x_SBND = x_SBND if x_SBND.stride(-1) == 1 else x_SBND.contiguous()
        fused: Tensor = rope(x_SBND, cos_SR.contiguous(), sin_SR.contiguous(), interleaved, False)
        return fused
    wide = torch.promote_types(x_SBND.dtype, torch.float32)  # rounded once, at the end
    x_SBNR, rest = x_SBND[..., :turned].to(wide), x_SBND[..., turned:]
    across = _across(x_SBNR, interleaved)
    out = x_SBNR * cos_SR[:, None, None] + across * sin_SR[:, None, None]
    out = out.to(x_SBND.dtype)
    return torch.cat([out, rest], dim=-1) if rest.size(-1) else out


def rotate_reference(
    x_SBND: Tensor, angles_SF: Tensor, *, magnitude: float = 1.0, interleaved: bool = False
) -> Tensor:
    """The formula as complex numbers: each pair times magnitude x exp(i angle), in fp64."""
    turned = 2 * angles_SF.size(-1)
    x = x_SBND[..., :turned].double()
    half = turned // 2
    pairs = x.view(*x.shape[:-1], half, 2) if interleaved else torch.stack(x.chunk(2, -1), -1)
    angles = angles_SF.double()[:, None, None]
    turn = torch.polar(torch.full_like(angles, magnitude), angles)
    out = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
    out = out if interleaved else out.transpose(-1, -2)
    return torch.cat([out.flatten(-2).to(x_SBND.dtype), x_SBND[..., turned:]], dim=-1)


def turns(angles_SF: Tensor, *, magnitude: float, interleaved: bool) -> tuple[Tensor, Tensor]:
    """(cosine, sine) [S, R], each frequency for both columns of its pair.

    Args:
        angles_SF: [S, F] fp32, in radians.
        magnitude: multiplies both.
        interleaved: as for `rotate`.
    """
    angles_SR = angles_SF.repeat_interleave(2, -1) if interleaved else angles_SF.repeat(1, 2)
    return angles_SR.cos() * magnitude, angles_SR.sin() * magnitude


def _is_fused(x_SBND: Tensor, cos_SR: Tensor, sin_SR: Tensor) -> bool:
    """Whether the operator `rope` takes these tensors."""
    learned = cos_SR.requires_grad or sin_SR.requires_grad
    unknown = "it does not know angles that are learned" if learned else None
    small = x_SBND.numel() < SMALL
    return form_of("rope", x_SBND, cos_SR, sin_SR, small=small, unknown=unknown) != "reference"


def _across(x: Tensor, interleaved: bool) -> Tensor:
    """Each pair (a, b) as (-b, a)."""
    if interleaved:
        return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
