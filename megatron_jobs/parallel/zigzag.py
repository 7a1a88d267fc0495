"""Which positions of a sequence a context-parallel rank holds.

A sequence is cut into 2 x context chunks, and a rank takes one from the front and its mirror image
from the back, so that all ranks do equal work under a causal mask. Axis letters: S positions.
"""

import torch
from torch import Tensor


def zigzag_positions(seq_len: int, ranks: int, rank: int, device: torch.device) -> Tensor:
    """Positions that context rank `rank` of `ranks` holds, in the order in which it holds them.

    Returns: [seq_len / ranks] int64.
    Source: Dubey et al. 2024 (Llama 3), section 3.3.2, arXiv:2407.21783.
    """
    chunks = torch.arange(seq_len, device=device).view(2 * ranks, -1)
    return torch.cat([chunks[rank], chunks[2 * ranks - 1 - rank]])


def all_positions(seq_len: int, ranks: int, device: torch.device) -> Tensor:
    """Positions in the order in which the ranks' pieces lie when gathered: [seq_len] int64."""
    return torch.cat([zigzag_positions(seq_len, ranks, rank, device) for rank in range(ranks)])
