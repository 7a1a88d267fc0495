"""A blend whose weights change over the run: one blend after another, each source going on.

As on demand as the blends it is made of: kept are their counts and where each phase begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from megatron_jobs.config.curriculum import Phase
from megatron_jobs.data.blend import Blend, normalize


@dataclass(frozen=True, eq=False)
class PhasedBlend:
    """Which source each sample comes from, and which of that source's samples it is."""

    firsts: list[int]
    """[phases + 1], the first sample of each, and the end."""
    places: list[list[int]]
    """[phases], the sources that have a weight."""
    blends: list[Blend]
    """[phases], of those sources."""
    bases: list[list[int]]
    """[phases + 1, sources], samples of each source before each phase, and in all."""

    @classmethod
    def plan(cls, phases: Sequence[Phase], samples: int) -> Self:
        """The blend of a run of `samples` samples."""
        firsts = [0, *(round(phase.until * samples) for phase in phases)]
        places: list[list[int]] = []
        blends: list[Blend] = []
        bases = [[0] * len(phases[0].weights)]
        for phase, first, end in zip(phases, firsts, firsts[1:], strict=False):
            own = [place for place, weight in enumerate(phase.weights) if weight > 0]
            blend = Blend.by_weights([phase.weights[place] for place in own], end - first)
            base = list(bases[-1])
            for place, count in zip(own, blend.taken(end - first), strict=True):
                base[place] += count
            places.append(own)
            blends.append(blend)
            bases.append(base)
        return cls(firsts, places, blends, bases)

    def __len__(self) -> int:
        """Samples."""
        return self.firsts[-1]

    def __getitem__(self, sample: int) -> tuple[int, int]:
        """(source, which of its samples) of a sample."""
        phase = int(np.searchsorted(self.firsts, sample, "right")) - 1
        place, number = self.blends[phase][sample - self.firsts[phase]]
        source = self.places[phase][place]
        return source, self.bases[phase][source] + number

    def taken(self, samples: int) -> list[int]:
        """How many of the first `samples` each source gives."""
        phase = max(int(np.searchsorted(self.firsts, samples, "left")) - 1, 0)
        counts = list(self.bases[phase])
        own = self.blends[phase].taken(samples - self.firsts[phase])
        for place, count in zip(self.places[phase], own, strict=True):
            counts[place] += count
        return counts

    def find(self, source: int, numbers: Sequence[int]) -> list[int]:
        """The samples that are those of a source, in the order given; others are left out."""
        found = []
        for number in numbers:
            bases = [base[source] for base in self.bases]
            phase = int(np.searchsorted(bases, number, "right")) - 1
            if phase == len(self.blends):  # never given
                continue
            place = self.places[phase].index(source)
            inside = self.blends[phase].find(place, [number - bases[phase]])
            found += [self.firsts[phase] + sample for sample in inside]
        return found

    def save(self, folder: Path, name: str) -> dict[str, Any]:
        """Write NAME-phase-P-counts.npy for each phase P; returns the rest, for a JSON file."""
        rules = [blend.save(folder, f"{name}-phase-{i}") for i, blend in enumerate(self.blends)]
        return {
            "firsts": self.firsts,
            "places": self.places,
            "bases": self.bases,
            "phases": rules,
        }

    @classmethod
    def load(cls, folder: Path, name: str, rest: dict[str, Any]) -> Self:
        """What `save` wrote and returned."""
        rules = enumerate(rest["phases"])
        blends = [Blend.load(folder, f"{name}-phase-{place}", rule) for place, rule in rules]
        return cls(rest["firsts"], rest["places"], blends, rest["bases"])


def mean_weights(phases: Sequence[Phase]) -> list[float]:
    """Each source's share over the whole run: what a blend without phases would be asked for."""
    starts = [0.0, *(phase.until for phase in phases)]
    spans = [phase.until - start for phase, start in zip(phases, starts, strict=False)]
    shares = [normalize(phase.weights) for phase in phases]
    columns = zip(*shares, strict=True)
    return [sum(s * w for s, w in zip(spans, column, strict=True)) for column in columns]
