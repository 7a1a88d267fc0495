"""Random tokens that every model can be asked, the same for the same vocabulary."""

import torch
from torch import Tensor

TOKENS = 48
SEQUENCES = 4


def probe_tokens(vocab_size: int, seq_len: int, seed: int = 0) -> Tensor:
    """Token ids [4, 48 or fewer], the same for the same vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    length = min(TOKENS, seq_len)
    return torch.randint(0, vocab_size, (SEQUENCES, length), generator=generator)
