"""Which layer is the first that computes something else than theirs does, and why."""

import ctypes
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from megatron_jobs.checkpoint.end_faults import (
    embedding_faults,
    ending_faults,
    our_ends,
    output_faults,
    their_ends,
)
from megatron_jobs.checkpoint.evidence import our_evidence, their_evidence
from megatron_jobs.checkpoint.state_faults import STATE_TOLERANCE, distance, state_faults
from megatron_jobs.checkpoint.trace import EMBEDDING, ENDING, HEADS, Trace
from megatron_jobs.checkpoint.weight_faults import listed, weight_faults
from megatron_jobs.config.model import ModelConfig

Looked = TypeVar("Looked")
Opened = Callable[[], Any]
"""Gives a model, perhaps by loading it; it is let go before the next is asked for."""


LARGE = 1 << 24
"""Parameters, from which on a model that was let go is worth looking for."""


@dataclass(frozen=True)
class Models:
    """The two sides of a comparison."""

    ours: Opened
    theirs: Opened
    model: ModelConfig

    def look(
        self, at_ours: Callable[[Any], Looked], at_theirs: Callable[[Any], Looked]
    ) -> tuple[Looked, Looked]:
        """Theirs is opened, looked at and let go; then ours."""
        other = at_theirs(self.theirs())
        if self.model.parameters() > LARGE:
            let_go()
        return at_ours(self.ours()), other


def let_go() -> None:
    """Give memory of what is gone back to the system, so that there is room for the next model."""
    gc.collect()  # modules may know each other
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps freed pieces to itself
    if trim is not None:
        trim(0)


def diagnose(models: Models, ours: Trace, theirs: Trace, tokens_BT: Tensor) -> list[str]:
    """Sentences: where the two differ first, and the causes that are known.

    Args:
        ours, theirs: runs over prompts of which `tokens_BT` is the first.
    """
    place, before = first_difference(ours, theirs)
    way = list(ours.states)
    lost = next(iter(wrong_experts(ours, theirs).items()), None)
    if lost is not None and (place is None or way.index(lost[0]) <= way.index(place)):
        found = f"{lost[0]}: experts {listed(lost[1])} answer otherwise than theirs"
        return [found, *_inside(models, lost[0], tokens_BT)]
    if place is None:
        own, other = models.look(lambda chunk: our_ends(chunk, models.model), their_ends)
        return ["no layer differs, only the logits do", *output_faults(own, other)]
    found = f"{place}: hidden states differ by {_apart(place, ours, theirs):.2g}"
    if before is not None:
        found += f" (those of {before} by {_apart(before, ours, theirs):.2g})"
    return [found, *_causes(models, place, (ours.states[place], theirs.states[place]), tokens_BT)]


def _causes(
    models: Models, place: str, states: tuple[Tensor, Tensor], tokens_BT: Tensor
) -> Iterator[str]:
    if "layer " in place and place != ENDING:
        yield from _inside(models, place, tokens_BT)
        return
    model = models.model
    own, other = models.look(lambda chunk: our_ends(chunk, model), their_ends)
    explain = embedding_faults if place.endswith(EMBEDDING) else ending_faults
    yield from explain(own, other, states, model)


def first_difference(ours: Trace, theirs: Trace) -> tuple[str | None, str | None]:
    """(the first state that differs by more than rounding, the one before it)."""
    before = None
    for place in ours.states:
        if place not in theirs.states:
            continue
        if distance(ours.states[place], theirs.states[place]) > STATE_TOLERANCE:
            return place, before
        before = place
    return None, before


def heads_differ(ours: Trace, theirs: Trace) -> bool:
    """Whether what an encoder says beside its logits is not the same."""
    held = [name for name in HEADS if name in ours.states and name in theirs.states]
    return any(distance(ours.states[n], theirs.states[n]) > STATE_TOLERANCE for n in held)


def wrong_experts(ours: Trace, theirs: Trace) -> dict[str, list[int]]:
    """Layer -> experts that make something else of the same states."""
    found = {}
    for layer in [name for name in ours.experts if name in theirs.experts]:
        one, other = ours.experts[layer], theirs.experts[layer]
        wrong = [
            expert
            for expert, (a, b) in enumerate(zip(one, other, strict=False))
            if distance(a.flatten(), b.flatten()) > STATE_TOLERANCE
        ]
        if wrong or len(one) != len(other):
            found[layer] = wrong
    return found


def _apart(place: str, ours: Trace, theirs: Trace) -> float:
    one, other = ours.states[place], theirs.states[place]
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")


def _inside(models: Models, layer: str, tokens_BT: Tensor) -> Iterator[str]:
    """Causes in one layer: its tensors, and where those are right, its settings."""
    model = models.model
    own, other = models.look(
        lambda chunk: our_evidence(chunk, model, layer, tokens_BT),
        lambda theirs: their_evidence(theirs, model, layer, tokens_BT),
    )
    causes = list(weight_faults(own.weights, other.weights, model))
    causes = causes or list(state_faults(own, other, model))
    for cause in causes or ["differs, for no reason known here"]:
        yield f"{layer}: {cause}"
