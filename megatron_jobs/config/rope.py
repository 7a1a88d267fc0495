"""How rotary angles are stretched so that a model reads further than it was trained to."""

from collections.abc import Iterator
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from megatron_jobs.config.settings import Problem, Settings


class RopeScaling(Settings):
    """One of the known ways; the words are those of Hugging Face's `rope_parameters`."""

    kind: Literal["linear", "llama3", "yarn", "longrope"]
    """linear: all angles are divided by `factor` (Chen et al. 2023, arXiv:2306.15595); llama3: the
    long wavelengths only (Llama 3.1's own code); yarn: Peng et al. 2023, arXiv:2309.00071;
    longrope: a factor for each column (Ding et al. 2024, arXiv:2402.13753)."""
    factor: PositiveFloat | None = None
    """How many times further it reads; None: seq_len / original_seq_len (yarn and longrope)."""
    original_seq_len: PositiveInt | None = None
    """The longest sequence of the first training, in tokens; linear does not need it."""
    low_freq_factor: PositiveFloat = 1.0
    """llama3: wavelengths over original_seq_len / this are divided by the whole factor."""
    high_freq_factor: PositiveFloat = 4.0
    """llama3: wavelengths under original_seq_len / this stay as they are."""
    beta_fast: PositiveFloat = 32.0
    """yarn: columns that turn more often than this over original_seq_len stay as they are."""
    beta_slow: PositiveFloat = 1.0
    """yarn: columns that turn less often than this are divided by the whole factor."""
    mscale: float | None = None
    """yarn of DeepSeek: weight of the logarithm that scales cosine and sine."""
    mscale_all_dim: float | None = None
    """yarn of DeepSeek: the same for the scale of the scores."""
    truncate: bool = True
    """yarn: whether the bounds of the ramp are rounded to whole columns."""
    attention_factor: PositiveFloat | None = None
    """Of cosine and sine; None: what the paper says for the factor."""
    short_factors: tuple[PositiveFloat, ...] = ()
    """longrope: divides each pair of columns' angle, in sequences up to original_seq_len."""
    long_factors: tuple[PositiveFloat, ...] = ()
    """longrope: the same in longer sequences."""

    def problems(self) -> Iterator[Problem]:
        """What a kind needs and is not there."""
        if self.factor is None and self.kind in ("linear", "llama3"):
            yield "factor", f"missing; {self.kind} needs it"
        if self.kind != "linear" and self.original_seq_len is None:
            yield "original_seq_len", f"missing; {self.kind} needs it"
        if self.kind == "longrope" and not (self.short_factors and self.long_factors):
            yield "short_factors", "missing; longrope needs short_factors and long_factors"
        if self.high_freq_factor <= self.low_freq_factor:
            found = f"{self.high_freq_factor} is not over low_freq_factor {self.low_freq_factor}"
            yield "high_freq_factor", found
