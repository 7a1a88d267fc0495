"""What a sample index is built from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from megatron_jobs.config.curriculum import Curriculum, Phase
from megatron_jobs.data.splits import Split
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile


@dataclass(frozen=True)
class Source:
    """One token file of an index."""

    prefix: Path
    tokens: TokenFile
    facts: TokenFacts
    weight: float | None = None
    """Share in the blend, in any unit; None on all sources for shares by size."""
    scores: Path | None = None
    """Numbers for a curriculum by score: a .npy, or the records that the file was made of."""

    @property
    def hashes(self) -> tuple[str, str]:
        """Of the .bin and the .idx: what makes two sources the same."""
        return (self.facts.bin_hash, self.facts.idx_hash)


@dataclass(frozen=True, kw_only=True)
class IndexPlan:
    """How an index is built of its sources."""

    split: str
    seq_len: int
    seed: int
    samples: dict[Split, int | None]
    """Wanted of each split: 0 for none, None for one whole epoch."""
    packing: Literal["none", "best_fit"] = "none"
    """How documents become samples: laid end to end and cut, or packed."""
    curriculum: Curriculum | None = None
    """Of the train split; None for a shuffle."""
    phases: Sequence[Phase] = ()
    """Weights of the train split over the run, in place of the sources' own."""
    earlier: Path | None = None
    """An earlier index: this one goes on behind what it gave."""
    earlier_samples: int = 0
    """How many samples of its train split were taken."""
    only_new_sources: bool = False
    """Whether it may share no source with that one."""
