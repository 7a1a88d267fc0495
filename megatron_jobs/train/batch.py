"""What one forward pass reads, and a rank's cut of it. Axis letters: B sequences, S positions."""

from typing import TypedDict, cast

from torch import Tensor

from megatron_jobs.parallel.device import engine_device
from megatron_jobs.parallel.groups import context_rank, context_ranks
from megatron_jobs.parallel.zigzag import zigzag_positions


class MicroBatch(TypedDict):
    """Sequences for one forward pass; whole ones, the same on all ranks of a data rank."""

    tokens: Tensor
    """[B, S] int64: what the model reads."""
    labels: Tensor
    """[B, S] int64: what it should say; within the vocabulary even where it does not count."""
    loss_mask: Tensor
    """[B, S] float: 1 where the label counts, 0 where not."""
    positions: Tensor
    """[B, S] int64: place of each token in its sequence; learned positions read it."""


def own_part(batch: MicroBatch) -> MicroBatch:
    """The positions that this rank computes, on its device: [B, S / context]."""
    device, ranks = engine_device(), context_ranks()
    tensors = {name: batch[name].to(device) for name in MicroBatch.__annotations__}  # type: ignore[literal-required]
    if ranks > 1:
        kept = zigzag_positions(tensors["tokens"].size(1), ranks, context_rank(), device)
        tensors = {name: tensor[:, kept] for name, tensor in tensors.items()}
    return cast(MicroBatch, tensors)
