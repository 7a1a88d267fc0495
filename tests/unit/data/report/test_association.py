"""Intervals hold what they should as often as they say."""

import numpy as np
import pytest

from megatron_jobs.data.report.association import Rate, compare, pooled


@pytest.mark.parametrize(("base", "trials"), [(0.01, 20), (0.01, 500), (0.001, 200), (0.05, 3000)])
def test_without_a_difference_few_intervals_leave_out_0(base: float, trials: int) -> None:
    draw = np.random.default_rng(1)
    found = [
        compare(Rate(int(draw.binomial(trials, base)), trials),
                Rate(int(draw.binomial(100_000, base)), 100_000))
        for _ in range(1000)
    ]  # fmt: skip
    assert sum(one.distance > 0 for one in found) <= 65


def test_a_difference_is_found_and_its_size() -> None:
    draw = np.random.default_rng(2)
    truth = np.log(0.03 / 0.97) - np.log(0.01 / 0.99)
    found = [
        compare(Rate(int(draw.binomial(20_000, 0.03)), 20_000),
                Rate(int(draw.binomial(100_000, 0.01)), 100_000))
        for _ in range(500)
    ]  # fmt: skip
    assert sum(one.low <= truth <= one.high for one in found) >= 465
    assert all(one.low > 0.8 for one in found)


def test_few_words_say_little() -> None:
    elsewhere = Rate(12, 160_000)
    assert compare(Rate(0, 20), elsewhere).distance == 0
    assert compare(Rate(1, 20), elsewhere).distance == 0
    assert compare(Rate(0, 0), Rate(0, 0)).distance == 0
    assert compare(Rate(10, 1000), elsewhere).distance > 1


def test_pooled() -> None:
    assert pooled([3, 5], [100, 300], [2, 2]) == Rate(8, 400)
    found = pooled([3, 5], [100, 300], [10, 1])
    assert found.share == pytest.approx((30 + 5) / (1000 + 300))
    assert found.trials == pytest.approx(1300**2 / (100 * 100 + 300))
    assert pooled([], [], []) == pooled([0], [5], [0]) == Rate(0, 0)
