"""Shares of a blend that are not set by hand."""

from collections.abc import Sequence
from math import exp, log
from typing import Literal

Kind = Literal["web", "books", "papers", "code", "reference"]

SEEDS: dict[Kind, float] = {
    "web": 0.65,
    "books": 0.175,
    "papers": 0.075,
    "code": 0.075,
    "reference": 0.04,
}
"""The field's table, middles of its ranges: web 60-70 %, books 15-20 %, papers 5-10 %, code 5-10 %,
reference 3-5 %."""


def shares_by_size(tokens: Sequence[int], temperature: float) -> list[float]:
    """Shares in proportion to size^(1 / temperature), adding up to 1.

    Args:
        tokens: [sources], size of each, 1 or more.
        temperature: 1 for the sizes themselves; above, small sources get more of the samples, and
            equal shares in the end.
    Source: Arivazhagan et al. 2019, section 4.2, arXiv:1907.05019.
    """
    logs = [log(size) / temperature for size in tokens]
    parts = [exp(value - max(logs)) for value in logs]
    return [part / sum(parts) for part in parts]


def shares_by_kind(kinds: Sequence[Kind], tokens: Sequence[int]) -> list[float]:
    """The SEEDS of the kinds that are there, adding up to 1; sources of a kind share by size.

    Args:
        kinds, tokens: [sources].
    """
    held = dict.fromkeys(kinds, 0)
    for kind, size in zip(kinds, tokens, strict=True):
        held[kind] += size
    total = sum(SEEDS[kind] for kind in held)
    pairs = zip(kinds, tokens, strict=True)
    return [SEEDS[kind] / total * size / held[kind] for kind, size in pairs]
