"""Batches of made-up text that a small model can learn, cut as the engine wants them."""

from collections.abc import Iterator

import torch

from megatron_jobs.parallel.groups import data_rank, data_ranks
from megatron_jobs.train.batch import MicroBatch

VOCAB = 512
SEQ_LEN = 32


def global_batch(step: int, size: int) -> MicroBatch:
    """Walks of a fixed stride through the vocabulary; a fifth of the targets does not count."""
    draw = torch.Generator().manual_seed(step)
    first = torch.randint(0, VOCAB, (size, 1), generator=draw)
    walk = (first + 7 * torch.arange(SEQ_LEN + 1)) % VOCAB
    counted = torch.rand(size, SEQ_LEN, generator=draw) < 0.8
    return MicroBatch(
        tokens=walk[:, :-1],
        labels=walk[:, 1:],
        loss_mask=counted.float(),
        positions=torch.arange(SEQ_LEN).expand(size, SEQ_LEN),
    )


def micro_batches(step: int, *, size: int = 4, micro: int = 1) -> Iterator[MicroBatch]:
    """This data rank's share of the global batch of `step`."""
    whole = global_batch(step, size)
    share = size // data_ranks()
    for start in range(data_rank() * share, (data_rank() + 1) * share, micro):
        yield MicroBatch(**{name: part[start : start + micro] for name, part in whole.items()})
