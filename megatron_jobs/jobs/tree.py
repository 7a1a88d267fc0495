"""A plan drawn as a tree, one line a job: each below the last of those it waits for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of the tree."""

    job: str
    guide: str
    """What is drawn before the name."""
    others: tuple[str, ...]
    """Jobs that it waits for and that it is not drawn below."""


def plan_tree(after: Mapping[str, Sequence[str]]) -> list[Branch]:
    """Each job once.

    Args:
        after: for each job those it waits for, in an order in which it comes after them.
    """
    depths = job_depths(after)
    parents = {job: _parent(job, others, depths) for job, others in after.items()}
    below: dict[str, list[str]] = {}
    for job, parent in parents.items():
        below.setdefault(parent, []).append(job)
    drawn = []
    waiting = [(job, "", "") for job in reversed(below.get("", []))]
    while waiting:
        job, guide, space = waiting.pop()
        others = tuple(other for other in after[job] if other != parents[job])
        drawn.append(Branch(job, guide, others))
        children = below.get(job, [])
        for child in reversed(children):
            last = child == children[-1]
            below_it = space + ("   " if last else "│  ")
            waiting.append((child, space + ("└─ " if last else "├─ "), below_it))
    return drawn


def job_depths(after: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many jobs stand before each on the longest way to it; waiting in a circle counts once."""
    depths: dict[str, int] = {}
    for job, others in after.items():
        depths[job] = max((depths[other] + 1 for other in others if other in depths), default=0)
    return depths


def _parent(job: str, others: Sequence[str], depths: Mapping[str, int]) -> str:
    """The deepest of those that a job waits for, the last named of equals; nothing for none."""
    before = [other for other in others if depths.get(other, depths[job]) < depths[job]]
    return max(reversed(before), key=lambda other: depths[other], default="")
