"""The angles by which a layer turns its queries and keys.

Axis letters: S positions, R columns of a head that turn, F = R / 2 frequencies.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.kernels.rope import turns

STEP = 256
"""Positions by which a table of cosines grows when a decoder reads on."""


@dataclass(frozen=True)
class Rope:
    """Frequencies and magnitude; equal ones share their tables."""

    columns: int
    """R."""
    base: int
    scaling: RopeScaling | None
    seq_len: int
    """The longest sequence; what a scaling without a factor stretches to."""
    interleaved: bool

    def frequencies(self, *, long: bool = False) -> Tensor:
        """Radians per position [F] fp32; `long`: in a sequence that longrope calls long."""
        exponents_F = torch.arange(0, self.columns, 2, dtype=torch.float32) / self.columns
        plain_F = 1.0 / (self.base**exponents_F)
        if self.scaling is None:
            return plain_F
        if self.scaling.kind == "linear":
            return plain_F / self.factor()
        if self.scaling.kind == "llama3":
            return _llama3(plain_F, self.scaling, self.factor())
        if self.scaling.kind == "yarn":
            return self._yarn(self.base**exponents_F)
        factors = self.scaling.long_factors if long else self.scaling.short_factors
        return 1.0 / (torch.tensor(factors, dtype=torch.float32) * self.base**exponents_F)

    def factor(self) -> float:
        """How many times further it reads than it was trained to."""
        scaling = self.scaling
        if scaling is None:
            return 1.0
        if scaling.factor is None:
            assert scaling.original_seq_len is not None, f"{scaling.kind} without a length"
            return self.seq_len / scaling.original_seq_len
        return scaling.factor

    def magnitude(self) -> float:
        """Of cosine and sine."""
        scaling = self.scaling
        if scaling is None or scaling.kind in ("linear", "llama3"):
            return 1.0
        if scaling.attention_factor is not None:
            return scaling.attention_factor
        if scaling.kind == "longrope":
            assert scaling.original_seq_len is not None, "longrope without a length"
            growth = math.log(self.factor()) / math.log(scaling.original_seq_len)
            return math.sqrt(1 + growth) if self.factor() > 1 else 1.0
        if scaling.mscale and scaling.mscale_all_dim:
            own, all_dim = (
                yarn_magnitude(self.factor(), s) for s in (scaling.mscale, scaling.mscale_all_dim)
            )
            return own / all_dim
        return yarn_magnitude(self.factor())

    def turns(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """(cosine, sine) [S, R] of at least the first `length` positions, dtype and device of
        `like`."""
        rows = -(-length // STEP) * STEP
        return _table(self, rows, self._is_long(length), like.dtype, like.device)

    def bend(self) -> int | None:
        """Tokens after which longrope takes the other factors; None: there are none."""
        scaling = self.scaling
        return scaling.original_seq_len if scaling and scaling.kind == "longrope" else None

    def _is_long(self, length: int) -> bool:
        bend = self.bend()
        return bend is not None and length > bend

    def _yarn(self, periods_F: Tensor) -> Tensor:
        """Source: Peng et al. 2023, section 3.2 ("NTK-by-parts"), arXiv:2309.00071."""
        scaling = self.scaling
        assert scaling is not None, "yarn without settings"
        assert scaling.original_seq_len is not None, "yarn without a length"
        bounds = [
            self.columns
            * math.log(scaling.original_seq_len / (often * 2 * math.pi))
            / (2 * math.log(self.base))
            for often in (scaling.beta_fast, scaling.beta_slow)
        ]
        low, high = bounds
        if scaling.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.columns - 1)
        width = high - low if high != low else 0.001
        ramp_F = ((torch.arange(len(periods_F), dtype=torch.float32) - low) / width).clamp(0, 1)
        kept_F = 1 - ramp_F
        return 1.0 / (self.factor() * periods_F) * (1 - kept_F) + 1.0 / periods_F * kept_F


def rope_of(model: ModelConfig, layer: int) -> Rope | None:
    """The angles of a layer, from 0; None where there are none, or latent attention has its own."""
    if model.position != "rope" or model.latent is not None:
        return None
    local = model.local_rope_base is not None and model.window_of(layer) is not None
    return Rope(
        columns=model.rope_columns(),
        base=model.local_rope_base if local and model.local_rope_base else model.rope_base,
        scaling=None if local else model.rope_scaling,
        seq_len=model.seq_len,
        interleaved=model.rope_interleaved,
    )


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """Source: Peng et al. 2023, eq. 22; DeepSeek weighs the logarithm."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _llama3(plain_F: Tensor, scaling: RopeScaling, factor: float) -> Tensor:
    """Long wavelengths divided by the factor, short ones as they are, a blend between them.

    Source: Dubey et al. 2024, section 3.4.2, arXiv:2407.21783, and the code of its release.
    """
    assert scaling.original_seq_len is not None, "llama3 without a length"
    length, slow, fast = scaling.original_seq_len, scaling.low_freq_factor, scaling.high_freq_factor
    waves_F = 2 * math.pi / plain_F
    share_F = (length / waves_F - slow) / (fast - slow)
    blend_F = (1 - share_F) * plain_F / factor + share_F * plain_F
    stretched_F = torch.where(waves_F > length / slow, plain_F / factor, blend_F)
    return torch.where(waves_F < length / fast, plain_F, stretched_F)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def _table(
    rope: Rope, rows: int, long: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of `rows` positions; all layers and steps read the same ones."""
    frequencies_F = rope.frequencies(long=long).to(device)
    positions_S = torch.arange(rows, dtype=torch.float32, device=device)
    angles_SF = torch.outer(positions_S, frequencies_F)
    cos, sin = turns(angles_SF, magnitude=rope.magnitude(), interleaved=rope.interleaved)
    return cos.to(dtype), sin.to(dtype)
