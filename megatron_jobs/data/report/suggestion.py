"""Weights that bring a property of a blend nearest to a target, as the index stage takes them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from megatron_jobs.data.report.blend_facts import BlendPart
from megatron_jobs.data.reweight import suggest_weights
from megatron_jobs.errors import UserError
from megatron_jobs.text.licences import licence_group

DIGITS = 6


@dataclass(frozen=True)
class Wish:
    """A target and how to come near it."""

    property: str
    """`language`, `licence`, `licence_group`, `source`, `year`, or a category of the lists."""
    shares: Mapping[str, float]
    """Group -> share. Of tokens; of a category, of the mentions of the groups that are named."""
    floor: float
    stay: float


TALLIES = {"language": "languages", "licence": "licences", "source": "sources", "year": "years"}
OF_TOKENS = ("licence_group", *TALLIES)
SHOWN = 20
"""Names that are there, in an error."""


def suggest(
    parts: Sequence[BlendPart], wish: Wish, licence_groups: Mapping[str, str]
) -> dict[str, Any]:
    """The weights beside the present ones, the shares of both, and the YAML for an index job.

    Raises: UserError for a group that is nowhere in the blend.
    """
    rates = [_rates(part, wish, licence_groups) for part in parts]
    names = list(wish.shares)
    _check(wish, rates)
    trained = sum(part.source.trained for part in parts)
    present = np.array([part.source.trained / trained for part in parts])
    matrix = np.array([[rate.get(name, 0.0) for rate in rates] for name in names])
    of_tokens = wish.property in OF_TOKENS
    totals = np.array([1.0 if of_tokens else sum(r.get(n, 0) for n in names) for r in rates])
    weights = suggest_weights(
        matrix,
        totals.tolist(),
        list(wish.shares.values()),
        present_S=present.tolist(),
        floor=wish.floor,
        stay=wish.stay,
    )
    return {
        "property": wish.property,
        "target": dict(wish.shares),
        "present": dict(zip(names, _shares(matrix, totals, present), strict=True)),
        "suggested": dict(zip(names, _shares(matrix, totals, weights), strict=True)),
        "weights": [*_weights(parts, present, weights)],
        "yaml": _yaml(parts, weights),
    }


def _rates(part: BlendPart, wish: Wish, own: Mapping[str, str]) -> dict[str, float]:
    """Of each group in one token of a source: its share of the tokens, or mentions."""
    made_of = part.made_of
    if wish.property == "licence_group":
        found: dict[str, float] = {}
        for name, count in made_of.licences.counts.items():
            group = licence_group(name, own)
            found[group] = found.get(group, 0.0) + count / max(made_of.bytes, 1)
        return found
    if wish.property in TALLIES:
        counts = getattr(made_of, TALLIES[wish.property]).counts
        return {name: count / max(made_of.bytes, 1) for name, count in counts.items()}
    read = part.tokens_read or 1.0
    start = f"{wish.property}."
    return {
        name.removeprefix(start): count / read
        for name, count in made_of.mentions.groups.items()
        if name.startswith(start)
    }


def _check(wish: Wish, rates: Sequence[Mapping[str, float]]) -> None:
    """Raise UserError for a property or a name that the blend does not have."""
    there = sorted({name for rate in rates for name, value in rate.items() if value})
    if not there and wish.property not in OF_TOKENS:
        rule = f"must be one of {', '.join(OF_TOKENS)}, or a category that the texts speak of"
        raise UserError(f"target.property: found {wish.property!r}, {rule}")
    for name in wish.shares:
        if name not in there:
            known = ", ".join(one or '""' for one in there[:SHOWN])
            found = f"{wish.property} {name!r} is in no source"
            raise UserError(f"target.shares.{name}: {found}; found {known}")


def _shares(matrix: Any, totals: Any, weights: Any) -> list[float]:
    whole = float(totals @ weights) or 1.0
    return [float(share) / whole for share in matrix @ weights]


def _weights(parts: Sequence[BlendPart], present: Any, weights: Any) -> Iterator[dict[str, Any]]:
    for part, before, after in zip(parts, present, weights, strict=True):
        times = part.source.times_read * after / before if before else None
        yield {
            "name": part.source.name,
            "present": float(before),
            "suggested": round(float(after), DIGITS),
            "times_read": None if times is None else float(times),
        }


def _yaml(parts: Sequence[BlendPart], weights: Any) -> str:
    """Sources that get nothing are left out: an index takes only weights above 0."""
    tokens = [
        {"path": str(part.source.path), "weight": round(float(weight), DIGITS)}
        for part, weight in zip(parts, weights, strict=True)
        if round(float(weight), DIGITS) > 0
    ]
    return yaml.safe_dump({"tokens": tokens}, sort_keys=False)
