"""Choosing the next token. B sequences of the batch, V vocabulary."""

import torch
from torch import Tensor

from megatron_jobs.config.sampling import Sampling


def next_tokens(logits_BV: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Draw one token for each sequence.

    Args:
        logits_BV: [B, V], any float type.
        generator: a CPU generator; the draw is a pure function of it and the logits.
    Returns: [B] int64.
    """
    if sampling.temperature == 0:
        return logits_BV.argmax(-1)
    probabilities_BV = kept_probabilities(logits_BV, sampling)
    return torch.multinomial(probabilities_BV.cpu(), 1, generator=generator)[:, 0]


def kept_probabilities(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities after temperature, top-k and top-p, in this order, summing to one.

    Source: top-k: Fan et al. 2018, arXiv:1805.04833; top-p: Holtzman et al. 2019,
    arXiv:1904.09751, section 3.1 (the token that crosses p is kept).
    """
    scaled_BV = logits_BV.float() / sampling.temperature
    if 0 < sampling.top_k < scaled_BV.size(-1):
        least_B1 = scaled_BV.topk(sampling.top_k, dim=-1).values[:, -1:]
        scaled_BV = scaled_BV.masked_fill(scaled_BV < least_B1, float("-inf"))
    probabilities_BV = scaled_BV.softmax(-1)
    if sampling.top_p < 1:
        sorted_BV, order_BV = probabilities_BV.sort(dim=-1, descending=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV
        sorted_BV = sorted_BV.masked_fill(before_BV >= sampling.top_p, 0)
        probabilities_BV = torch.zeros_like(sorted_BV).scatter(-1, order_BV, sorted_BV)
        probabilities_BV = probabilities_BV / probabilities_BV.sum(-1, keepdim=True)
    return probabilities_BV
