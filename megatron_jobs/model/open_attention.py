"""Attention to all that a mask leaves open, with a number added to the scores of each head.

Axis letters: Q positions of the queries here, K positions of the keys, B sequences, N heads,
D columns of a head. megatron-core puts positions first: [Q, B, N, D].
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn import functional

from megatron_jobs.config.model import ModelConfig


class OpenAttention(MegatronModule):  # type: ignore[misc]
    """The core of attention in encoders, and in decoders that read one (BERT, T5).

    With the mask type `causal` a position sees none behind it; every rank has whole sequences.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        model: ModelConfig,
        attn_mask_type: AttnMaskType,
        **_: object,
    ) -> None:
        super().__init__(config=config)
        self.dropout = config.attention_dropout
        self.causal = attn_mask_type == AttnMaskType.causal
        self.scale = model.attention_scale

    def forward(
        self,
        q_QBND: Tensor,
        k_KBND: Tensor,
        v_KBND: Tensor,
        attention_mask: Tensor | None = None,
        *,
        attention_bias: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """Mixed values.

        Args:
            q_QBND: queries [Q, B, N, D].
            k_KBND: keys [K, B, N, D].
            v_KBND: values [K, B, N, D].
            attention_mask: bool, broadcasts to [B, N, Q, K]; True forbids (megatron-core's sense).
            attention_bias: [1, N, Q, K], added to the scores.
        Returns: [Q, B, N x D].
        """
        q_BNQD, k_BNKD, v_BNKD = (x.permute(1, 2, 0, 3) for x in (q_QBND, k_KBND, v_KBND))
        dropout = self.dropout if self.training else 0.0
        with self._drawing(dropout):
            out_BNQD = functional.scaled_dot_product_attention(
                q_BNQD,
                k_BNKD,
                v_BNKD,
                attn_mask=self._added(q_BNQD, k_BNKD, attention_mask, attention_bias),
                dropout_p=dropout,
                scale=self.scale,
            )
        return out_BNQD.permute(2, 0, 1, 3).flatten(2)

    def _added(
        self, q_BNQD: Tensor, k_BNKD: Tensor, forbidden: Tensor | None, bias: Tensor | None
    ) -> Tensor | None:
        """What is added to the scores, [B or 1, N or 1, Q or 1, K]; None for nothing."""
        if self.causal:
            queries, keys = q_BNQD.size(2), k_BNKD.size(2)
            later_QK = torch.ones(queries, keys, dtype=torch.bool, device=q_BNQD.device).triu(1)
            forbidden = later_QK if forbidden is None else forbidden | later_QK
        if forbidden is None:
            return bias
        if bias is None:
            bias = torch.zeros((), dtype=q_BNQD.dtype, device=q_BNQD.device)
        return bias.masked_fill(forbidden, -math.inf)

    def _drawing(self, dropout: float) -> AbstractContextManager[Any]:
        """Random numbers of this rank's own: tensor ranks hold different heads."""
        forks = dropout > 0 and not self.config.sequence_parallel
        return get_cuda_rng_tracker().fork() if forks else nullcontext()


def forbidden(attends_BK: Tensor | None) -> Tensor | None:
    """[B, 1, 1, K], True where no query looks, of [B, K] that is 0 there; None: all look at all."""
    return None if attends_BK is None else (attends_BK == 0)[:, None, None]
