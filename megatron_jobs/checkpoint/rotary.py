"""The rotary angles that a model uses, measured on heads before and after they are turned.

B sequences, T positions, N heads, D columns of a head, R columns that are turned, R/2 pairs.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_jobs.config.model import ModelConfig

TURNED = 0.999
"""Share of a pair's length along the angle found, from which on it counts as turned by it."""


@dataclass(frozen=True)
class Rotation:
    """How heads are turned."""

    interleaved: bool
    columns: int
    """R."""
    angles: Tensor
    """[R/2] of one position, radians."""
    length: float
    """Of turned heads, as a multiple of what it was."""

    def base(self) -> float | None:
        """The base of which all angles are powers, if there is one."""
        pairs = torch.arange(len(self.angles), dtype=torch.float64)
        seen = (pairs > 0) & (self.angles > 1e-5)
        logs = -self.angles[seen].log() * len(self.angles) / pairs[seen]
        if not len(logs) or float(logs.max() - logs.min()) > 1e-2:
            return None
        return math.exp(float(logs.median()))


def rotation(plain_BTND: Tensor, turned_BTND: Tensor) -> Rotation | None:
    """What turns `plain` into `turned` from one position to the next, or None if nothing does."""
    plain, turned = plain_BTND.double(), turned_BTND.double()
    if plain.shape != turned.shape or plain.size(1) < 2:
        return None
    moved = ~torch.isclose(plain, turned, rtol=1e-6, atol=1e-9).flatten(0, 2).all(0)
    columns = (int(moved.nonzero().max()) + 2) // 2 * 2 if bool(moved.any()) else 0
    if not columns:
        return None
    for interleaved in (False, True):
        found = _angles(plain[..., :columns], turned[..., :columns], interleaved)
        if found is not None:
            angles, length = found
            return Rotation(interleaved, columns, angles, length)
    return None


def _pairs(x: Tensor, interleaved: bool) -> Tensor:
    """[..., R] as complex numbers [..., R/2]."""
    halves = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
    return torch.complex(halves[0].contiguous(), halves[1].contiguous())


def _angles(plain: Tensor, turned: Tensor, interleaved: bool) -> tuple[Tensor, float] | None:
    before, after = _pairs(plain, interleaved), _pairs(turned, interleaved)
    products = (before.conj() * after).sum((0, 2))  # over sequences and heads: [T, R/2]
    lengths = (before.abs() * after.abs()).sum((0, 2))
    if float((products.abs() / lengths.clamp_min(1e-30)).min()) < TURNED:
        return None
    angles = products[1].angle()
    last = len(products) - 1  # small angles are seen better far from the start
    turns = ((angles * last - products[last].angle()) / (2 * math.pi)).round()
    angles = (products[last].angle() + 2 * math.pi * turns) / last
    return angles, float(after.abs().mean() / before.abs().mean())


def rotary_faults(
    ours: dict[str, Tensor], theirs: dict[str, Tensor], model: ModelConfig
) -> list[str]:
    """How the angles of ours differ from theirs; `q`, `q_turned` and the like, [B, T, N, D]."""
    own, other = (rotation(states["k"], states["k_turned"]) for states in (ours, theirs))
    if own is None or other is None:
        return _none_on_one_side(own, other)
    if own.interleaved != other.interleaved:
        words = {True: "interleaved pairs (neighbouring columns)", False: "halves"}
        rule = f"set rope_interleaved: {str(other.interleaved).lower()}"
        return [
            f"the model turns {words[own.interleaved]}, theirs {words[other.interleaved]}: {rule}"
        ]
    if own.columns != other.columns:
        return [f"angles turn {own.columns} columns of a head, theirs {other.columns}: rope_share"]
    if torch.isclose(own.angles, other.angles, rtol=1e-4, atol=1e-7).all():
        if math.isclose(own.length, other.length, rel_tol=1e-4):
            return []
        found = f"{own.length:.6g}, theirs by {other.length:.6g}"
        return [f"turned heads are scaled by {found}: rope_scaling's attention factor"]
    return [_other_angles(own, other)]


def _none_on_one_side(own: Rotation | None, other: Rotation | None) -> list[str]:
    if own is None and other is None:
        return []
    one, two = ("no angles", "some") if own is None else ("angles", "none known here")
    return [f"heads are turned by {one}, theirs by {two}: position or rope_scaling"]


def _other_angles(own: Rotation, other: Rotation) -> str:
    bases = own.base(), other.base()
    if bases[0] is not None and bases[1] is not None:
        return f"rotary base differs: ours {bases[0]:.4g}, theirs {bases[1]:.4g}"
    pair = int((own.angles - other.angles).abs().argmax())
    found = f"{float(own.angles[pair]):.4g}, theirs by {float(other.angles[pair]):.4g}"
    return f"rotary angles are stretched otherwise: pair {pair} turns by {found}: rope_scaling"
