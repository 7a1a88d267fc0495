"""What one forward pass reads, and a rank's cut of it. Axis letters: B sequences, S positions."""

from typing import NotRequired, TypedDict, cast

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
    documents: NotRequired[Tensor]
    """[B, S] int32: equal where tokens may attend to each other; absent where all of a row may."""


def own_part(batch: MicroBatch) -> MicroBatch:
    """The positions that this rank computes, on its device: [B, S / context].

    `documents` stay whole: attention compares its own queries' with those of all keys.
    """
    device, ranks = engine_device(), context_ranks()
    tensors = {name: cast(Tensor, part).to(device) for name, part in batch.items()}
    if ranks > 1:
        kept = zigzag_positions(tensors["tokens"].size(1), ranks, context_rank(), device)
        cut = {name: tensor[:, kept] for name, tensor in tensors.items() if name != "documents"}
        tensors |= cut
    return cast(MicroBatch, tensors)
