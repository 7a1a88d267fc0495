"""How ranks meet, and what random numbers they draw."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.errors import MegatronJobsError
from megatron_jobs.parallel.groups import connect as connect_rank
from megatron_jobs.parallel.groups import (
    context_rank,
    context_ranks,
    data_rank,
    data_ranks,
    open_groups,
)
from megatron_jobs.runtime.rank import Rank
from tests.ranks import on_ranks, ranks


@ranks(3)
def test_ranks_meet_and_talk(rank: Rank) -> None:
    assert dist.get_rank() == rank.index
    total = torch.tensor(float(rank.index + 1))
    dist.all_reduce(total)
    assert total == 6


def test_places_along_the_axes() -> None:
    def place(rank: Rank) -> tuple[int, ...]:
        open_groups(Mesh(context=2), seed=1)
        return data_rank(), data_ranks(), context_rank(), context_ranks()

    assert on_ranks(4, place) == [(0, 2, 0, 2), (0, 2, 1, 2), (1, 2, 0, 2), (1, 2, 1, 2)]


def test_tensor_ranks_draw_alike_and_others_do_not() -> None:
    def draw(rank: Rank) -> float:
        open_groups(Mesh(tensor=2), seed=1)
        return float(torch.rand(1, dtype=torch.float64))

    first, second, third, fourth = on_ranks(4, draw)
    assert first == second
    assert third == fourth
    assert first != third


def test_a_leader_that_never_comes_is_named(tmp_path: Path) -> None:
    rank = Rank(index=1, world=2, attempt="a1")
    with pytest.raises(MegatronJobsError, match=r"^waited 0 s for the address of rank 0 in .*a1"):
        connect_rank(rank, tmp_path, seconds=0.2)


def test_the_first_failure_is_the_report() -> None:
    def fail(rank: Rank) -> None:
        if rank.index == 1:
            raise ValueError("rank one's own words")
        dist.barrier()

    with pytest.raises(pytest.fail.Exception, match=r"rank 1:[\s\S]*rank one's own words"):
        on_ranks(2, fail)
