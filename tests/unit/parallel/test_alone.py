"""One rank shares with itself: the same numbers, and nothing is sent."""

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from megatron_jobs.parallel.alone import unless_alone


class Collective:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, output: Tensor, source: Tensor, **words: object) -> str:
        self.calls += 1
        return "work"


@pytest.mark.parametrize(("ranks", "calls"), [(1, 0), (2, 1)])
def test_only_several_ranks_send(ranks: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda group: ranks)
    collective, source = Collective(), torch.arange(4.0)
    own, apart = source.view(4), torch.zeros(4)
    for output in (own, apart):
        collective.calls = 0
        found = unless_alone(collective)(output, source, group=object(), async_op=True)
        assert collective.calls == calls
        assert found == ("work" if calls else None)
    assert torch.equal(own, torch.arange(4.0))
    assert torch.equal(apart, torch.arange(4.0) * (ranks == 1))
