"""Where the shares of a blend come from."""

from collections.abc import Iterator
from typing import Literal

from megatron_jobs.config.settings import Problem, Settings


class Shares(Settings):
    """How the sources of a blend get their weights."""

    by: Literal["hand", "size", "seeds"] = "hand"
    """hand: each source's own `weight`. size: in proportion to its tokens^(1 / temperature).
    seeds: the field's table by `kind`: web 60-70 %, books 15-20 %, papers 5-10 %, code 5-10 %,
    reference 3-5 %; the middles, divided among the kinds that are there, and among sources of one
    kind by size. With size and seeds, as with weights by hand, sources are gone through again."""
    temperature: float = 1.0
    """For size: 1 for the sizes as they are; above, small sources give more (2: square roots)."""

    def problems(self) -> Iterator[Problem]:
        """Values that no share comes from."""
        if self.temperature <= 0:
            yield "temperature", f"{self.temperature} must be above 0; 1 for the sizes themselves"
        if self.temperature != 1 and self.by != "size":
            yield "temperature", f"is not read with by: {self.by}; take by: size, or leave it out"
