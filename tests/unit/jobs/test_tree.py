"""The plan as a tree."""

import random

from megatron_jobs.jobs.tree import job_depths, plan_tree


def drawn(after: dict[str, list[str]]) -> str:
    """As `mj status` shows it."""
    lines = [(b.guide + b.job, b.others) for b in plan_tree(after)]
    return "\n".join(f"{line} +{','.join(more)}" if more else line for line, more in lines)


def test_each_job_is_below_the_last_that_it_waits_for() -> None:
    after = {"text": [], "other": [], "tokens": ["text"], "index": ["tokens"]}
    after |= {"train": ["index", "text"], "convert": ["train"], "judge": ["other", "convert"]}
    after |= {"eval": ["tokens", "train"]}
    assert drawn(after) == (
        "text\n"
        "└─ tokens\n"
        "   └─ index\n"
        "      └─ train +text\n"
        "         ├─ convert\n"
        "         │  └─ judge +other\n"
        "         └─ eval +tokens\n"
        "other"
    )


def test_every_job_is_drawn_once_whatever_waits_for_what() -> None:
    for seed in range(50):
        choose = random.Random(seed)
        names = [f"j{i}" for i in range(choose.randrange(1, 30))]
        after = {
            n: choose.sample(names[:i], min(i, choose.randrange(4))) for i, n in enumerate(names)
        }
        branches = plan_tree(after)
        assert sorted(branch.job for branch in branches) == sorted(names)
        places = {branch.job: place for place, branch in enumerate(branches)}
        for branch in branches:
            below = set(after[branch.job]) - set(branch.others)
            assert len(below) == (1 if after[branch.job] else 0)
            assert all(places[parent] < places[branch.job] for parent in below)


def test_a_circle_is_drawn_as_well() -> None:
    assert sorted(branch.job for branch in plan_tree({"a": ["b"], "b": ["a"]})) == ["a", "b"]
    assert plan_tree({}) == []


def test_depth_is_the_longest_way() -> None:
    assert job_depths({"a": [], "b": ["a"], "c": ["a", "b"], "d": ["x"]}) == {
        "a": 0,
        "b": 1,
        "c": 2,
        "d": 0,
    }


def test_a_chain_of_thousands_is_drawn() -> None:
    names = [str(i) for i in range(3000)]
    after = {name: [names[i - 1]] if i else [] for i, name in enumerate(names)}
    assert [branch.job for branch in plan_tree(after)] == names
