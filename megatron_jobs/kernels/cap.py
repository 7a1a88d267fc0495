"""Numbers that are kept within bounds."""

import torch
from torch import Tensor


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """cap x tanh(x / cap): nearly x where x is small, never beyond the cap.

    Args:
        x: any shape and dtype.
        cap: positive.
    Returns: the shape and dtype of x.
    Source: Gemma Team 2024, section 2, "Logit soft-capping", arXiv:2408.00118.
    """
    return torch.tanh(x / cap) * cap
