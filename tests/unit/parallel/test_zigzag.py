"""Context ranks together hold each position once, and do equal work."""

import pytest
import torch

from megatron_jobs.parallel.zigzag import all_positions, zigzag_positions

CPU = torch.device("cpu")


def test_chunks_from_front_and_back() -> None:
    assert zigzag_positions(8, 2, 0, CPU).tolist() == [0, 1, 6, 7]
    assert zigzag_positions(8, 2, 1, CPU).tolist() == [2, 3, 4, 5]
    assert all_positions(8, 2, CPU).tolist() == [0, 1, 6, 7, 2, 3, 4, 5]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_work_is_equal_under_a_causal_mask(ranks: int) -> None:
    """A position attends to itself and all before it: position + 1 keys."""
    held = [zigzag_positions(16, ranks, rank, CPU) for rank in range(ranks)]
    assert sorted(torch.cat(held).tolist()) == list(range(16))
    assert len({int((positions + 1).sum()) for positions in held}) == 1
