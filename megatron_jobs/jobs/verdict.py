"""What the triage finds and decides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_jobs.jobs.causes import Decision, Rule, Weight

LONGEST = 300
"""Characters of a quoted line."""


@dataclass(frozen=True, slots=True)
class At:
    """Where and when something was said."""

    file: Path | None = None
    time: float = 0.0
    """In seconds since 1970, as far as files tell; 0: before all others."""
    rank: int | None = None
    node: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line that a rule fits."""

    rule: Rule
    weight: Weight
    line: str
    at: At = At()
    place: int = 0
    """Of the line, among those of its rank."""
    source: str = ""
    """FILE:LINE of a Python error."""

    @property
    def order(self) -> tuple[int, float, int]:
        """The least comes first: the heaviest, and of those the earliest."""
        return self.weight, self.at.time, self.place


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a start failed, and what follows."""

    cause: str
    """The words of the first real cause, in one line."""
    kind: str
    """GPU fault, memory, Python error, ...: see `jobs.causes`."""
    rank: int | None
    node: str
    """The node at fault or of the rank; several with commas between; empty: not known."""
    decision: Decision
    why: str
    cure: str = ""
    source: str = ""
    """FILE:LINE of a Python error."""
    time: float = 0.0
    """When, in seconds since 1970; 0: not known."""
    quotes: tuple[tuple[str, str], ...] = ()
    """(file's name, line) that the verdict rests on."""
    aftermath: Mapping[str, int] = field(default_factory=dict)
    """Kind of a consequence -> ranks that show it."""

    @property
    def who(self) -> str:
        """`rank 3 on node2`, as far as it is known."""
        rank = "" if self.rank is None else f"rank {self.rank}"
        return " on ".join(filter(None, (rank, self.node)))

    @property
    def sentence(self) -> str:
        """One line for a person."""
        return f"{self.who}: {self.cause}" if self.who else self.cause

    def facts(self) -> dict[str, Any]:
        """What the event `failed` holds."""
        names = ("cause", "kind", "rank", "node", "decision", "why", "source")
        return {name: getattr(self, name) for name in names}


def shortened(line: str) -> str:
    """One line of at most LONGEST characters."""
    flat = " ".join(line.split())
    return flat if len(flat) <= LONGEST else f"{flat[: LONGEST - 3]}..."
