"""Lists of task numbers, and how tasks are dealt out over arrays."""

import random

import pytest

from megatron_jobs.jobs.arrays import ids_of, read_list, short_list
from megatron_jobs.jobs.tasks import deal_out, shares


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], ""),
        ([0], "0"),
        ([3, 7, 9, 10, 11, 12], "3,7,9-12"),
        ([0, 1, 5, 6], "0-1,5-6"),
        (range(5000), "0-4999"),
    ],
)
def test_a_list_is_short(numbers: list[int], text: str) -> None:
    assert short_list(numbers) == text


def test_a_list_that_was_made_short_is_read_again() -> None:
    pick = random.Random(3)
    for count in (1, 2, 50, 900):
        numbers = sorted(pick.sample(range(1000), count))
        assert read_list(short_list(numbers)) == numbers


def test_ids_of_tasks_that_wait_together() -> None:
    assert ids_of("12_[3,9-11%2]") == ["12_3", "12_9", "12_10", "12_11"]
    assert ids_of("12_[4]") == ["12_4"]
    assert ids_of("12_4") == ["12_4"]
    assert ids_of("12") == ["12"]


@pytest.mark.parametrize("at_once", [0, 1, 2, 3, 7, 100, 10_000])
@pytest.mark.parametrize("size", [1, 3, 1001, 5000])
def test_arrays_hold_each_task_once_and_never_run_too_many(size: int, at_once: int) -> None:
    """Against a walk over all tasks and a sum over all rows."""
    pick = random.Random(size * at_once)
    for tasks in (range(2500), sorted(pick.sample(range(5000), 40)), [4999]):
        parts = deal_out(tasks, size=size, at_once=at_once)
        assert [task for part in parts for task in part.tasks] == list(tasks)
        for part in parts:
            indexes, _, bound = part.array.partition("%")
            assert tuple(part.offset + i for i in read_list(indexes)) == part.tasks
            assert max(read_list(indexes)) < size
            assert bound == (str(part.at_once) if at_once else "")
        if at_once:
            first_of_rows = [part.at_once for part in parts if part.after < 0]
            assert sum(first_of_rows) == at_once
            assert all(part.at_once >= 1 for part in parts)
            later = [(place, part) for place, part in enumerate(parts) if part.after >= 0]
            assert len({part.after for _, part in later}) == len(later)
            assert all(part.at_once == parts[part.after].at_once for _, part in later)
            assert all(part.after < place for place, part in later)


def test_shares_follow_the_loads() -> None:
    assert shares(100, [1000, 1000]) == [50, 50]
    assert shares(10, [1, 8, 1]) == [1, 8, 1]
    assert shares(3, [1000, 1, 1]) == [1, 1, 1]
