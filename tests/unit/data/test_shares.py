"""Shares against their formulas, worked out by hand."""

import pytest

from megatron_jobs.data.shares import SEEDS, shares_by_kind, shares_by_size


def test_by_size() -> None:
    assert shares_by_size([100, 300], 1) == pytest.approx([0.25, 0.75])
    assert shares_by_size([100, 400], 2) == pytest.approx([1 / 3, 2 / 3])  # square roots: 10 and 20
    assert shares_by_size([1, 10**15], 1e9) == pytest.approx([0.5, 0.5])
    assert shares_by_size([1, 10], 0.01) == pytest.approx([0, 1])  # no overflow either
    assert shares_by_size([7], 3) == [1]


def test_seeds_are_the_middles_of_the_table() -> None:
    ranges = {"web": (60, 70), "books": (15, 20), "papers": (5, 10), "code": (5, 10)}
    table = {kind: sum(ends) / 200 for kind, ends in ranges.items()} | {"reference": 0.04}
    assert pytest.approx(table) == SEEDS


def test_kinds_that_are_missing_leave_their_share_to_the_others() -> None:
    assert shares_by_kind(["web", "code"], [5, 5]) == pytest.approx([0.65 / 0.725, 0.075 / 0.725])
    shares = shares_by_kind(["web", "books", "papers", "code", "reference"], [1, 2, 3, 4, 5])
    assert shares == pytest.approx([value / 1.015 for value in SEEDS.values()])


def test_sources_of_one_kind_share_by_size() -> None:
    shares = shares_by_kind(["books", "web", "books"], [100, 7, 300])
    books = 0.175 / 0.825
    assert shares == pytest.approx([books / 4, 0.65 / 0.825, books * 3 / 4])
