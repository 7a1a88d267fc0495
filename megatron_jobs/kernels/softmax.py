"""Weights of attention from its scores. B sequences, N heads, Q queries, K keys."""

import math

import torch
from torch import Tensor

from megatron_jobs.kernels.cap import soft_cap
from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.softmax_ops import softmax

SMALL = 1 << 14
"""Numbers below which plain torch is faster. Causal, forward and backward, ours against torch's in
microseconds: fp32 on one core 71 and 66 (2^13), 82 and 87 (2^14), 105 and 132 (2^15); on two 74
and 69, 81 and 84, 88 and 123; bf16 is ahead from 2^13."""


def masked_softmax(
    scores_BNQK: Tensor,
    *,
    allowed: Tensor | None = None,
    scale: float = 1.0,
    cap: float | None = None,
    causal: bool = False,
) -> Tensor:
    """Softmax over the keys that each query may see.

    Args:
        scores_BNQK: [B, N, Q, K]; fp32, bf16 or fp16. All is computed in fp32.
        allowed: bool, broadcasts to [B, N, Q, K]: which key a query sees; None: all.
        scale: multiplies the scores first.
        cap: positive; the scaled scores become `cap x tanh(scores / cap)`. None: they stay.
        causal: query q sees keys up to q + K - Q alone; the others are not even looked at.
    Returns: [B, N, Q, K], the dtype of scores; 0 for keys that are not seen, NaN for a query that
        sees none. Such a query has a gradient of 0.
    Raises: ValueError when cap is not positive.
    """
    if cap is not None and not cap > 0:
        raise ValueError(f"cap must be positive, got {cap}; None is no cap")
    if allowed is not None:
        allowed = allowed.expand_as(scores_BNQK)
    if _is_fused(scores_BNQK, allowed):
        fused: Tensor = softmax(scores_BNQK.contiguous(), allowed, scale, cap or 0.0, causal)
        return fused
    exact = torch.promote_types(scores_BNQK.dtype, torch.float32)
    scores = scores_BNQK.to(exact) * scale
    scores = scores if cap is None else soft_cap(scores, cap)
    if causal:
        queries, keys = scores.shape[-2:]
        before = torch.ones(queries, keys, dtype=torch.bool, device=scores.device)
        before = before.tril(keys - queries)
        allowed = before if allowed is None else allowed & before
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1).to(scores_BNQK.dtype)


def masked_softmax_reference(
    row_K: Tensor, allowed_K: Tensor, *, scale: float, cap: float | None
) -> Tensor:
    """The formula for one query, in fp64, word for word."""
    scores = [scale * float(x) for x in row_K]
    if cap is not None:
        scores = [cap * math.tanh(score / cap) for score in scores]
    powers = [math.exp(s) if may else 0.0 for s, may in zip(scores, allowed_K, strict=True)]
    return torch.tensor([power / math.fsum(powers) for power in powers], dtype=torch.float64)


def _is_fused(scores: Tensor, allowed: Tensor | None) -> bool:
    """Whether the operator `softmax` takes these tensors."""
    unknown = None
    if scores.dim() != 4:
        unknown = "it knows [B, N, Q, K] alone"
    elif allowed is not None and allowed.stride(-1) != 1 and allowed.size(-1) > 1:
        unknown = "it does not know a mask whose keys lie apart"
    small = scores.numel() < SMALL
    return form_of("softmax", scores, small=small, unknown=unknown) != "reference"
