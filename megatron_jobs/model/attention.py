"""The core of attention: queries, keys and values in, mixed values out.

It turns queries and keys by its layer's rotary angles itself: megatron-core hands all layers the
same ones, and knows fewer ways to stretch them. A cache holds keys that are not turned.

Axis letters: Q positions of the queries here, K positions of the keys, B sequences, N query heads,
G key heads, D columns of a head. megatron-core puts positions first: [Q, B, N, D].
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeGuard

import torch
from megatron.core.tensor_parallel.mappings import (
    gather_from_sequence_parallel_region,
)
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn import functional

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.kernels.attention import capped_attention
from megatron_jobs.kernels.causal_attention import causal_attention, is_fused
from megatron_jobs.kernels.rope import rotate
from megatron_jobs.model.rope import rope_of
from megatron_jobs.parallel.zigzag import all_positions, zigzag_positions

STRETCH = 128
"""Positions that are worth a call of their own."""


def stretches(documents_S: Tensor) -> Iterator[tuple[int, int]]:
    """(start, end) of runs of whole documents, each of STRETCH positions or more but the last."""
    ends = (documents_S.diff().nonzero()[:, 0] + 1).tolist()
    start = 0
    for end in ends:
        if end - start >= STRETCH:
            yield start, end
            start = end
    yield start, len(documents_S)


def first_keys(documents_BK: Tensor | None, window: int | None, q: Tensor, k: Tensor) -> Tensor:
    """The first key that each of the last queries sees, int32 [B, Q].

    Args:
        documents_BK: the document of each key, which a query does not see beyond; None: one.
        window: keys that a query reaches back to, its own among them; None: all.
        q: [Q, B, ...].
        k: [K, B, ...].
    """
    queries, keys = q.size(0), k.size(0)
    place_K = torch.arange(keys, dtype=torch.int32, device=q.device)
    first_BK = torch.zeros_like(place_K).expand(q.size(1), keys)
    if documents_BK is not None:
        begins = documents_BK.diff(dim=1, prepend=documents_BK[:, :1]) != 0
        first_BK = (place_K * begins).cummax(1).values
    if window is not None:
        first_BK = first_BK.maximum(place_K - (window - 1))
    return first_BK[:, keys - queries :].int().contiguous()


def _are_documents(mask: Tensor | None) -> TypeGuard[Tensor]:
    return mask is not None and mask.dtype != torch.bool


class CausalAttention(MegatronModule):  # type: ignore[misc]
    """Each position attends to itself and those before it, as far as its layer's window reaches.

    Fewer queries than keys are the last of them, as when decoding with a cache. With context
    parallelism each rank gathers all keys and values and keeps its own queries.
    `scaled_dot_product_attention` does it, or `capped_attention` where scores are capped.

    Args:
        model: the settings of the whole model.
        layer_number: of the layer in it, from 1.
    """

    def __init__(
        self, config: TransformerConfig, *, model: ModelConfig, layer_number: int, **given: Any
    ) -> None:
        super().__init__(config=config)
        self.dropout = config.attention_dropout
        self.ranks = given["pg_collection"].cp
        self.rope = rope_of(model, layer_number - 1)
        self.window = model.window_of(layer_number - 1)
        self.cap = model.attention_softcap
        self.scale: float | None = model.attention_scale or given.get("softmax_scale")

    def forward(
        self,
        q_QBND: Tensor,
        k_KBGD: Tensor,
        v_KBGD: Tensor,
        attention_mask: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """Mixed values.

        Args:
            q_QBND: queries [Q, B, N, D].
            k_KBGD: keys [K, B, G, D].
            v_KBGD: values [K, B, G, D].
            attention_mask: what is forbidden beyond causality, in one of two forms. bool,
                broadcasts to [B, N, Q, K]: True forbids (megatron-core's sense). int32 [B, S], the
                document of each position of whole sequences: no query sees another document's keys;
                the only form that context parallelism takes. A document's positions lie together.
        Returns: [Q, B, N x D].
        """
        if self.rope is not None:
            q_QBND, k_KBGD = self._turned(q_QBND, k_KBGD)
        if is_fused(q_QBND, k_KBGD, v_KBGD, unknown=self._unknown(attention_mask)):
            return self._fused(q_QBND, k_KBGD, v_KBGD, attention_mask)
        if self.ranks.size() > 1:
            dense = attention_mask is not None and not _are_documents(attention_mask)
            assert not dense, "a bool mask with context parallelism is not supported"
            k_KBGD, v_KBGD = self._gather(k_KBGD), self._gather(v_KBGD)
            return self._mix(q_QBND, k_KBGD, v_KBGD, attention_mask)
        whole = q_QBND.size(0) == k_KBGD.size(0)
        if whole and _are_documents(attention_mask) and attention_mask.device.type == "cpu":
            return self._by_stretch(q_QBND, k_KBGD, v_KBGD, attention_mask)
        return self._by_window(q_QBND, k_KBGD, v_KBGD, attention_mask)

    def _unknown(self, mask: Tensor | None) -> str | None:
        """What `causal_attention` does not know of this call."""
        if self.ranks.size() > 1:
            return "it does not know positions that are cut over ranks"
        if self.cap is not None:
            return "it does not know capped scores"
        if self.training and self.dropout > 0:
            return "it does not know dropout, whose random numbers are torch's"
        if mask is not None and not _are_documents(mask):
            return "it does not know a mask of its own for each query"
        return None

    def _fused(
        self, q_QBND: Tensor, k_KBGD: Tensor, v_KBGD: Tensor, documents_BK: Tensor | None
    ) -> Tensor:
        """Mixed values, of windows and documents too in one pass."""
        first_BQ = None
        if documents_BK is not None or self.window is not None:
            first_BQ = first_keys(documents_BK, self.window, q_QBND, k_KBGD)
        return causal_attention(q_QBND, k_KBGD, v_KBGD, first_BQ=first_BQ, scale=self.scale)

    def _turned(self, q_QBND: Tensor, k_KBGD: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, each by the angles of its position in the whole sequence."""
        assert self.rope is not None, "there are no angles"
        queries, keys, ranks = q_QBND.size(0), k_KBGD.size(0), self.ranks.size()
        cos_SR, sin_SR = self.rope.turns(keys * ranks, like=q_QBND)
        own: Tensor | slice = slice(0, keys)
        if ranks > 1:
            own = zigzag_positions(keys * ranks, ranks, self.ranks.rank(), q_QBND.device)
        cos_KR, sin_KR = cos_SR[own], sin_SR[own]
        cos_QR, sin_QR = cos_KR[keys - queries :], sin_KR[keys - queries :]
        pairs = self.rope.interleaved
        turned_QBND = rotate(q_QBND, cos_QR, sin_QR, interleaved=pairs)
        return turned_QBND, rotate(k_KBGD, cos_KR, sin_KR, interleaved=pairs)

    def _by_stretch(
        self, q_SBND: Tensor, k_SBGD: Tensor, v_SBGD: Tensor, documents_BS: Tensor
    ) -> Tensor:
        """The same without the scores between stretches of documents, which all are forbidden."""
        rows = []
        for row, documents in enumerate(documents_BS):
            parts = []
            for start, end in stretches(documents):
                own = (slice(start, end), slice(row, row + 1))
                shared = bool(documents[start] != documents[end - 1])
                mask = documents[None, start:end] if shared else None
                parts.append(self._by_window(q_SBND[own], k_SBGD[own], v_SBGD[own], mask))
            rows.append(torch.cat(parts))
        return torch.cat(rows, dim=1)

    def _by_window(
        self, q_QBND: Tensor, k_KBGD: Tensor, v_KBGD: Tensor, forbidden: Tensor | None
    ) -> Tensor:
        """The same without most of the scores that no window reaches."""
        queries, keys = q_QBND.size(0), k_KBGD.size(0)
        dense = forbidden is not None and not _are_documents(forbidden)
        if self.window is None or keys <= self.window or dense:
            return self._mix(q_QBND, k_KBGD, v_KBGD, forbidden)
        parts, before = [], keys - queries
        for start in range(0, queries, max(STRETCH, self.window)):
            end = min(start + max(STRETCH, self.window), queries)
            seen = slice(max(0, before + start + 1 - self.window), before + end)
            mask = None if forbidden is None else forbidden[:, seen]
            parts.append(self._mix(q_QBND[start:end], k_KBGD[seen], v_KBGD[seen], mask))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _mix(
        self, q_QBND: Tensor, k_KBGD: Tensor, v_KBGD: Tensor, forbidden: Tensor | None
    ) -> Tensor:
        """Mixed values [Q, B, N x D] under one mask."""
        mask = self._allowed(q_QBND, k_KBGD, forbidden)
        q_BNQD, k_BGKD, v_BGKD = (x.permute(1, 2, 0, 3) for x in (q_QBND, k_KBGD, v_KBGD))
        dropout = self.dropout if self.training else 0.0
        with self._drawing(dropout):
            if self.cap is not None:
                out_BNQD = capped_attention(
                    q_BNQD,
                    k_BGKD,
                    v_BGKD,
                    allowed=mask,
                    scale=self.scale,
                    cap=self.cap,
                    dropout=dropout,
                )
            else:
                out_BNQD = functional.scaled_dot_product_attention(
                    q_BNQD,
                    k_BGKD,
                    v_BGKD,
                    attn_mask=mask,
                    is_causal=mask is None and q_QBND.size(0) > 1,
                    enable_gqa=q_BNQD.size(1) != k_BGKD.size(1),
                    dropout_p=dropout,
                    scale=self.scale,
                )
        return out_BNQD.permute(2, 0, 1, 3).flatten(2)

    def _drawing(self, dropout: float) -> AbstractContextManager[Any]:
        """Random numbers of this rank's own: tensor ranks hold different heads, and must drop
        different weights. With sequence parallelism megatron-core has forked the generator already.
        """
        forks = dropout > 0 and not self.config.sequence_parallel
        return get_cuda_rng_tracker().fork() if forks else nullcontext()

    def _gather(self, x: Tensor) -> Tensor:
        """All ranks' positions, in rank order; its gradient is summed and cut again."""
        gathered: Tensor = gather_from_sequence_parallel_region(
            x.contiguous(), tensor_parallel_output_grad=True, group=self.ranks
        )
        return gathered

    def _allowed(self, q: Tensor, k: Tensor, forbidden: Tensor | None) -> Tensor | None:
        """Which key each query may see [Q, K] or wider; None leaves it to `is_causal`."""
        queries, keys, ranks = q.size(0), k.size(0), self.ranks.size()
        reaches_all = self.window is None or keys <= self.window
        plain = forbidden is None and reaches_all and self.cap is None
        if ranks == 1 and plain and queries in (1, keys):
            return None
        if ranks > 1:
            seen = all_positions(keys, ranks, q.device)
            own = zigzag_positions(keys, ranks, self.ranks.rank(), q.device)
        else:
            seen = torch.arange(keys, device=q.device)
            own = seen[keys - queries :]
        allowed_QK = own[:, None] >= seen
        if self.window is not None:
            allowed_QK &= own[:, None] - seen < self.window
        if forbidden is None:
            return allowed_QK
        if not _are_documents(forbidden):
            return allowed_QK & ~forbidden
        together_BQK = forbidden[:, own, None] == forbidden[:, None, seen]
        return (allowed_QK & together_BQK)[:, None]
