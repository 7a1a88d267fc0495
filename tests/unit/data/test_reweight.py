"""Suggested weights against a search of the whole simplex, and the conditions of a minimum."""

import itertools

import numpy as np
import pytest

from megatron_jobs.data.reweight import minimise_on_simplex, suggest_weights


def random_problem(draw: np.random.Generator, sources: int) -> tuple[np.ndarray, np.ndarray]:
    rows = draw.normal(size=(draw.integers(1, 5), sources))
    return rows.T @ rows + 1e-3 * np.eye(sources), draw.normal(size=sources)


@pytest.mark.parametrize("sources", [1, 2, 3, 4])
def test_nothing_on_a_grid_is_better(sources: int) -> None:
    draw = np.random.default_rng(sources)
    steps = 24
    grid = np.array(
        [p for p in itertools.product(range(steps + 1), repeat=sources) if sum(p) == steps]
    )
    for _ in range(20):
        H, c = random_problem(draw, sources)
        floor = float(draw.choice([0, 0.1, 1 / sources]))
        found = minimise_on_simplex(H, c, floor)
        assert found.sum() == pytest.approx(1)
        assert found.min() >= floor - 1e-9
        points = floor + grid / steps * (1 - floor * sources)
        values = 0.5 * np.einsum("ns,st,nt->n", points, H, points) - points @ c
        assert 0.5 * found @ H @ found - found @ c <= values.min() + 1e-9


def test_many_sources_meet_the_conditions_of_a_minimum() -> None:
    draw = np.random.default_rng(9)
    H, c = random_problem(draw, 200)
    found = minimise_on_simplex(H, c, 0.001)
    slopes = H @ found - c
    above = found > 0.001 + 1e-9
    assert 1 <= above.sum() < 200
    assert np.ptp(slopes[above]) < 1e-8
    assert slopes[~above].min() >= slopes[above].max() - 1e-8


def test_a_target_that_can_be_met_is_met() -> None:
    rates = np.array([[1.0, 0.2, 0.0], [0.0, 0.8, 1.0]])
    present = [0.1, 0.1, 0.8]
    found = suggest_weights(rates, [1, 1, 1], [0.5, 0.5], present_S=present, floor=0.05, stay=1e-9)
    assert rates @ found == pytest.approx([0.5, 0.5], abs=1e-6)
    stays = suggest_weights(rates, [1, 1, 1], [0.5, 0.5], present_S=present, floor=0.05, stay=1e9)
    assert stays == pytest.approx(present, abs=1e-6)


def test_shares_of_rare_things_are_shares() -> None:
    """Mentions per token are small; the share of all mentions is what is brought to the target."""
    she, he = np.array([4e-5, 1e-5]), np.array([1e-5, 9e-5])
    found = suggest_weights(
        np.array([she, he]), she + he, [0.5, 0.5], present_S=[0.5, 0.5], floor=0.0, stay=1e-9
    )
    assert (she @ found) / ((she + he) @ found) == pytest.approx(0.5, abs=1e-6)
