"""A norm over all heads is one norm, whichever ranks hold the heads."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.kernels.norm import rms_norm_reference
from megatron_jobs.model.build import core_config
from megatron_jobs.model.norm import HeadsNorm
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests.ranks import ranks

HEADS, SIZE = 4, 6
MODEL = ModelConfig(layers=1, hidden=24, heads=HEADS, vocab_size=128, norm_offset=True)


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Heads [3, 2, N, D], a weight [N x D], and how much each output counts."""
    draw = torch.Generator().manual_seed(6)
    x, counts = torch.randn(2, 3, 2, HEADS, SIZE, generator=draw)
    return x, torch.randn(HEADS * SIZE, generator=draw), counts


@ranks(2)
def test_values_and_gradients_are_those_of_the_whole(rank: Rank) -> None:
    mesh = Mesh(tensor=2)
    open_groups(mesh, seed=1)
    x, weight, counts = drawn()
    own = slice(rank.index * HEADS // 2, (rank.index + 1) * HEADS // 2)
    norm = HeadsNorm(core_config(MODEL, mesh, "fp32"), SIZE, heads=HEADS, eps=1e-3)
    norm.weight.data.copy_(weight)
    part = x[..., own, :].clone().requires_grad_()
    found = norm(part)
    (found * counts[..., own, :]).sum().backward()
    assert norm.weight.grad is not None
    dist.all_reduce(norm.weight.grad)  # as megatron-core does

    whole, whole_weight = x.flatten(-2).requires_grad_(), weight.requires_grad_()
    expected = rms_norm_reference(whole, whole_weight, 1e-3, offset=True).view_as(x)
    (expected * counts).sum().backward()
    assert_close(found, expected[..., own, :])
    assert whole.grad is not None
    assert_close(part.grad, whole.grad.view_as(x)[..., own, :])
    assert_close(norm.weight.grad, whole_weight.grad)
