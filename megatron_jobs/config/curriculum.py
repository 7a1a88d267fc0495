"""In which order samples come: from easy to hard, and from one mixture of sources to the next."""

from collections.abc import Iterator, Sequence
from typing import Literal

from megatron_jobs.config.settings import Problem, Settings


class Curriculum(Settings):
    """Easy documents first, after Platanios et al. 2019, arXiv:1903.09848.

    At each moment only samples below a rank of difficulty (the competence) are drawn, each once an
    epoch. Where all of those are used up, the next easiest comes.
    """

    by: Literal["length", "rarity", "score"] = "length"
    """What makes a document hard. length: its tokens; rarity: how rare its tokens are, as the mean
    of -log of their share in the split; score: a number of each source's `scores`."""
    key: str = "metadata.perplexity"
    """Of the number in a record, where `scores` are records; metadata.x is one in its metadata."""
    descending: bool = False
    """Whether the highest number is the easiest, as with scores of quality."""
    pacing: Literal["linear", "root"] = "root"
    """How the competence grows; root: fast at first, as the square root (eq. 7 of the paper)."""
    start: float = 0.01
    """Share of the samples that is drawn from at first."""
    until: float = 0.5
    """Share of the run after which all samples are drawn from."""

    def problems(self) -> Iterator[Problem]:
        """Shares that are none."""
        for name in ("start", "until"):
            if not 0 < getattr(self, name) <= 1:
                yield name, f"{getattr(self, name)} is not a share; it must be in (0, 1]"


class Phase(Settings):
    """A stretch of the run with weights of its own."""

    until: float
    """Share of the train samples at which it ends; 1 for the last one."""
    weights: list[float]
    """Of each source, in any unit; 0 leaves it out."""


def phase_problems(phases: Sequence[Phase], sources: int) -> Iterator[Problem]:
    """What keeps `phases` from being those of a run over `sources` sources."""
    ends = [phase.until for phase in phases]
    if any(a >= b for a, b in zip([0.0, *ends], ends, strict=False)) or ends[-1:] != [1.0]:
        yield "phases", f"found ends {ends}; they must rise from above 0 to 1"
    for place, phase in enumerate(phases):
        name = f"phases.{place}.weights"
        if len(phase.weights) != sources:
            yield name, f"found {len(phase.weights)} weights for {sources} sources"
        elif min(phase.weights) < 0 or sum(phase.weights) == 0:
            yield name, f"found {phase.weights}; none may be negative, one must be positive"
    unused = [
        place
        for place in range(sources)
        if all(phase.weights[place : place + 1] == [0.0] for phase in phases)
    ]
    for place in unused:
        yield "phases", f"no phase gives tokens.{place} a weight; leave the source out"
