"""Attention whose scores are bounded, which no fused form knows.

Axis letters: B sequences, N query heads, G key heads, Q positions of queries, K of keys, D columns.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels.softmax import masked_softmax


def capped_attention(
    q_BNQD: Tensor,
    k_BGKD: Tensor,
    v_BGKD: Tensor,
    *,
    allowed: Tensor | None,
    scale: float | None,
    cap: float,
    dropout: float = 0.0,
) -> Tensor:
    """Softmax of `cap x tanh(scores / cap)`, times the values.

    Args:
        q_BNQD: [B, N, Q, D].
        k_BGKD: [B, G, K, D]; N / G query heads in turn share a key head.
        v_BGKD: [B, G, K, D], or of other columns.
        allowed: bool, broadcasts to [B, N, Q, K]: which key a query sees; None: all.
        scale: of the scores; None: 1 / sqrt(D).
        cap: positive.
        dropout: share of the weights that is dropped.
    Returns: [B, N, Q, D of v]; the softmax is taken in fp32 at least.
    Source: Gemma Team 2024, section 2, arXiv:2408.00118.
    """
    share = q_BNQD.size(1) // k_BGKD.size(1)
    k_BNKD, v_BNKD = (x.repeat_interleave(share, 1) for x in (k_BGKD, v_BGKD))
    scale = scale if scale is not None else q_BNQD.size(-1) ** -0.5
    scores = q_BNQD @ k_BNKD.transpose(-1, -2)
    weights = masked_softmax(scores, allowed=allowed, scale=scale, cap=cap)
    return functional.dropout(weights, dropout) @ v_BNKD


def capped_attention_reference(
    q_BNQD: Tensor, k_BGKD: Tensor, v_BGKD: Tensor, *, allowed: Tensor, scale: float, cap: float
) -> Tensor:
    """The formula for one query of one head at a time."""
    batch, heads, queries, _ = q_BNQD.shape
    share = heads // k_BGKD.size(1)
    out = q_BNQD.new_zeros(batch, heads, queries, v_BGKD.size(-1))
    may = allowed.expand(batch, heads, queries, k_BGKD.size(2))
    for b, n, q in ((b, n, q) for b in range(batch) for n in range(heads) for q in range(queries)):
        keys = k_BGKD[b, n // share][may[b, n, q]]
        scores = [cap * math.tanh(float(q_BNQD[b, n, q] @ key) * scale / cap) for key in keys]
        weights = torch.tensor(scores, dtype=q_BNQD.dtype).softmax(0)
        out[b, n, q] = weights @ v_BGKD[b, n // share][may[b, n, q]]
    return out
