"""Weights of a blend that bring a property nearest to a target.

Shapes: S sources, G groups that the target names.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
ROUNDS = 1000
SLACK = 1e-12


def suggest_weights(
    rates_GS: NDArray[np.float64],
    totals_S: Sequence[float],
    target_G: Sequence[float],
    *,
    present_S: Sequence[float],
    floor: float,
    stay: float,
) -> Vector:
    """Weights w [S], adding up to 1 and at least `floor` each, that minimise

        sum_g (sum_s w_s (rates_gs - target_g totals_s))^2 + stay |w - present|^2,

    the rates scaled so that the largest total is 1. The first sum is 0 where the blend's share of
    each group, sum_s w_s rates_gs / sum_s w_s totals_s, is its target.

    Args:
        rates_GS: of each group in each source, a token; such as 1 for a source all in a language.
        totals_S: of all groups that shares are of.
        target_G: shares.
        present_S: weights to stay near, adding up to 1.
        floor: at most 1 / S.
        stay: above 0, so that there is one answer.
    """
    totals = np.array(totals_S, np.float64)
    scale = totals.max() or 1.0
    A = (np.asarray(rates_GS, np.float64) - np.outer(target_G, totals)) / scale
    present = np.array(present_S, np.float64)
    hessian = A.T @ A + stay * np.eye(len(present))
    return minimise_on_simplex(hessian, stay * present, floor)


def minimise_on_simplex(hessian_SS: NDArray[np.float64], linear_S: Vector, floor: float) -> Vector:
    """The w that minimises w'Hw / 2 - c'w with sum(w) = 1 and w >= floor, H positive definite.

    An active set: sources at the floor are let go one by one while that makes it smaller.

    Source: Nocedal and Wright 2006, Numerical Optimization, algorithm 16.3.
    """
    sources = len(linear_S)
    linear = linear_S - hessian_SS @ np.full(sources, floor)
    budget = max(1.0 - floor * sources, 0.0)
    above = np.zeros(sources)
    above[0] = budget
    free = [0]
    for _ in range(ROUNDS * sources):
        wished, level = _solve(hessian_SS, linear, free, budget)
        if wished.min() >= -SLACK:
            above = wished.clip(0)
            gains = hessian_SS @ above - linear - level
            gains[free] = 0
            best = int(gains.argmin())
            if gains[best] >= -SLACK:
                return above + floor
            free.append(best)
            continue
        above, stopped = _step(above, wished, free)
        free.remove(stopped)
    raise AssertionError(f"no weights found for {sources} sources in {ROUNDS * sources} rounds")


def _solve(
    hessian: NDArray[np.float64], linear: Vector, free: list[int], budget: float
) -> tuple[Vector, float]:
    """The best point with only `free` above 0, and the slope that its free entries share."""
    size = len(free)
    system = np.zeros((size + 1, size + 1))
    system[:size, :size] = hessian[np.ix_(free, free)]
    system[:size, size] = -1
    system[size, :size] = 1
    found = np.linalg.solve(system, np.append(linear[free], budget))
    point = np.zeros(len(linear))
    point[free] = found[:size]
    return point, float(found[size])


def _step(above: Vector, wished: Vector, free: list[int]) -> tuple[Vector, int]:
    """As far towards `wished` as nothing is below 0, and who stops it."""
    falling = [place for place in free if wished[place] < -SLACK]
    reach = {place: above[place] / (above[place] - wished[place]) for place in falling}
    stopped = min(falling, key=lambda place: (reach[place], place))
    moved = above + reach[stopped] * (wished - above)
    moved[stopped] = 0
    return moved.clip(0), stopped
