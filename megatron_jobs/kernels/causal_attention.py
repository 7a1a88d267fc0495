"""Causal attention without its matrix of scores, of positions-first tensors.

Axis letters: Q positions of queries, K of keys, B sequences, N query heads, G key heads, D columns.
"""

import torch
from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels.causal_attention_ops import attention
from megatron_jobs.kernels.dispatch import form_of

SMALL = 16
"""Queries below which plain torch is faster: they lie along the lanes of a vector."""


def causal_attention(
    q_QBND: Tensor,
    k_KBGD: Tensor,
    v_KBGD: Tensor,
    *,
    first_BQ: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Each query's mean of the values that it sees, weighted by the softmax of its scores.

    Query q is that of position q + K - Q: it sees no key behind. Fused, the last axis of q, k and v
    is contiguous and the others have any strides; all is computed in fp32.

    Args:
        q_QBND: [Q, B, N, D], Q <= K; fp32, bf16 or fp16.
        k_KBGD: [K, B, G, D]; N / G query heads in turn share a key head.
        v_KBGD: [K, B, G, D].
        first_BQ: int32 [B, Q], the first key that each query sees: where its document or its window
            begins. None: key 0.
        scale: of the scores; None: 1 / sqrt(D).
    Returns: [Q, B, N x D], contiguous; 0 for a query that sees no key.
    Source: Dao 2023, arXiv:2307.08691, algorithms 1 and 2, with queries along the vectors.
    """
    if is_fused(q_QBND, k_KBGD, v_KBGD):
        scale = scale if scale is not None else q_QBND.size(-1) ** -0.5
        out_QBND: Tensor = attention(q_QBND, k_KBGD, v_KBGD, first_BQ, scale)[0]
        return out_QBND.flatten(2)
    return causal_attention_reference(q_QBND, k_KBGD, v_KBGD, first_BQ=first_BQ, scale=scale)


def causal_attention_reference(
    q_QBND: Tensor,
    k_KBGD: Tensor,
    v_KBGD: Tensor,
    *,
    first_BQ: Tensor | None,
    scale: float | None,
) -> Tensor:
    """The same by torch's own attention and a mask."""
    queries, keys = q_QBND.size(0), k_KBGD.size(0)
    key_K = torch.arange(keys, device=q_QBND.device)
    seen = key_K <= key_K[keys - queries :, None]
    if first_BQ is not None:
        seen = (seen & (key_K >= first_BQ[:, :, None]))[:, None]
    q_BNQD, k_BGKD, v_BGKD = (x.permute(1, 2, 0, 3) for x in (q_QBND, k_KBGD, v_KBGD))
    out_BNQD = functional.scaled_dot_product_attention(
        q_BNQD, k_BGKD, v_BGKD, attn_mask=seen, scale=scale, enable_gqa=True
    )
    return out_BNQD.permute(2, 0, 1, 3).flatten(2)


def is_fused(q_QBND: Tensor, k_KBGD: Tensor, v_KBGD: Tensor, *, unknown: str | None = None) -> bool:
    """Whether the fused form takes these tensors; elsewhere `auto` has torch's own without a word.

    Args:
        unknown: what else the caller wants that the fused form does not know.
    Raises: UserError where `fused` is asked for and cannot be.
    """
    columns = q_QBND.size(-1)
    if columns != v_KBGD.size(-1):
        unknown = "it does not know values of other columns than those of keys"
    elif columns % 8 or columns > 256:
        unknown = f"it knows 8, 16, ... 256 columns of a head, not {columns}"
    elif any(x.stride(-1) != 1 for x in (q_QBND, k_KBGD, v_KBGD)):
        unknown = "it does not know heads whose columns lie apart"
    small = q_QBND.device.type != "cpu" or q_QBND.size(0) < SMALL
    form = form_of("attention", q_QBND, k_KBGD, v_KBGD, small=small, unknown=unknown)
    return form == "cpu"
