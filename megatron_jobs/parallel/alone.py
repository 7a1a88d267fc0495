"""Collectives of a group of one rank: what it would send to itself stays where it is."""

import functools
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from megatron.core.distributed import param_and_grad_buffer
from torch import Tensor

from megatron_jobs.parallel.device import replace


@functools.cache
def install_alone() -> None:
    """Let gradients and weights be shared without a copy where one rank has all of them, once.

    gloo copies what it sums even then, through memory that it takes anew for each step.
    """
    share = {
        name: unless_alone(getattr(param_and_grad_buffer, name))
        for name in ("dist_reduce_scatter_func", "dist_all_gather_func")
    }
    replace(param_and_grad_buffer, **share)


def unless_alone(collective: Callable[..., Any]) -> Callable[..., Any]:
    """`collective`, of which nothing is left where the group is one rank."""

    @functools.wraps(collective)
    def shared(output: Tensor, source: Tensor, **words: Any) -> Any:
        if dist.get_world_size(words["group"]) > 1:
            return collective(output, source, **words)
        if output.data_ptr() != source.data_ptr():
            output.copy_(source)
        return None

    return shared
