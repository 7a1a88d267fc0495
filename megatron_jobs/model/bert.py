"""BERT: every token sees all others; norms stand after the sum with the residual stream.

Source: Devlin et al. 2018, arXiv:1810.04805. Axis letters: B sequences, S positions, H hidden,
V rows of the output layer. megatron-core puts positions first: [S, B, H].
"""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from megatron.core.enums import ModelType
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.tensor_parallel import (
    ColumnParallelLinear,
    gather_from_sequence_parallel_region,
    get_cuda_rng_tracker,
)
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlock, TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.model.feed_forward import Activation
from megatron_jobs.model.norm import Norm
from megatron_jobs.model.open_attention import OpenAttention, forbidden
from megatron_jobs.model.spec import layer_spec


@dataclass(frozen=True)
class Encoded:
    """What the last stage of an encoder says; None where the model has no such head."""

    states: Tensor
    """[S, B, H]; cut along S with sequence parallelism."""
    logits: Tensor | None = None
    """[B, S, V], V cut over tensor ranks unless gathered."""
    pooled: Tensor | None = None
    """[B, H]."""
    follows: Tensor | None = None
    """[B, 2], logits that the second segment follows the first, and that it does not."""


class Embedding(LanguageModelEmbedding):  # type: ignore[misc]
    """Vectors of token, position and segment, summed and normalised."""

    def __init__(self, config: TransformerConfig, model: ModelConfig) -> None:
        super().__init__(
            config=config,
            vocab_size=model.padded_vocab(),
            max_sequence_length=model.seq_len,
            position_embedding_type="learned_absolute",
            num_tokentypes=model.token_types,
        )
        self.layer_norm = Norm(config, model.hidden, model.norm_eps)
        self.dropout = nn.Dropout(model.dropout)
        self.embedding_dropout = nn.Identity()  # that one would come before the norm

    def forward(self, tokens_BS: Tensor, positions_BS: Tensor, types_BS: Tensor | None) -> Tensor:
        """[S, B, H]."""
        states_SBH = self.layer_norm(super().forward(tokens_BS, positions_BS, types_BS))
        cut = self.config.sequence_parallel  # each rank drops of its own positions
        with get_cuda_rng_tracker().fork() if cut else nullcontext():
            dropped: Tensor = self.dropout(states_SBH)
        return dropped


class Transform(MegatronModule):  # type: ignore[misc]
    """States, before they are compared with the embedding: a linear layer, activation, norm."""

    def __init__(self, config: TransformerConfig, model: ModelConfig) -> None:
        super().__init__(config=config)
        self.dense = nn.Linear(model.hidden, model.hidden)
        self.activation = Activation(model.activation)
        self.layer_norm = Norm(config, model.hidden, model.norm_eps)
        for parameter in self.dense.parameters():
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, states: Tensor) -> Tensor:
        """[..., H] to [..., H]."""
        changed: Tensor = self.layer_norm(self.activation(self.dense(states)))
        return changed


class Pooler(MegatronModule):  # type: ignore[misc]
    """A linear layer and tanh over the first token."""

    def __init__(self, config: TransformerConfig, model: ModelConfig) -> None:
        super().__init__(config=config)
        self.dense = nn.Linear(model.hidden, model.hidden)

    def forward(self, states_SBH: Tensor) -> Tensor:
        """[B, H], the same on every tensor rank."""
        if self.config.sequence_parallel:
            states_SBH = gather_from_sequence_parallel_region(
                states_SBH, tensor_parallel_output_grad=False
            )
        return torch.tanh(self.dense(states_SBH[0]))


class BertModel(LanguageModule):  # type: ignore[misc]
    """A pipeline stage of an encoder, with the heads that its settings name.

    Args:
        pre_process: it has the embedding.
        post_process: it has the heads.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TransformerConfig,
        *,
        layers: int,
        pre_process: bool,
        post_process: bool,
        vp_stage: int | None = None,
    ) -> None:
        super().__init__(config=config)
        self.pre_process, self.post_process, self.vp_stage = pre_process, post_process, vp_stage
        self.model_type = ModelType.encoder_or_decoder
        self.vocab_size = model.padded_vocab()
        self.has_types = model.token_types > 0
        self.share_embeddings_and_output_weights = model.tied and model.token_head
        if pre_process:
            self.embedding = Embedding(config, model)
        self.encoder = TransformerBlock(
            config=config,
            spec=TransformerBlockSubmodules(layer_specs=[open_layer_spec(model)] * layers),
            pre_process=pre_process,
            post_process=post_process,
            vp_stage=vp_stage,
        )
        if post_process:
            self._add_heads(model)
        if pre_process or post_process:
            self.setup_embeddings_and_output_layer()

    def _add_heads(self, model: ModelConfig) -> None:
        config = self.config
        self.pooler = Pooler(config, model) if model.pooler else None
        self.binary_head = nn.Linear(model.hidden, 2) if model.sentence_head else None
        self.lm_head = Transform(config, model) if model.token_head else None
        if model.token_head:
            self.output_layer = ColumnParallelLinear(
                model.hidden,
                self.vocab_size,
                config=config,
                init_method=config.init_method,
                bias=model.output_bias,
                gather_output=False,
                skip_weight_param_allocation=self.pre_process and model.tied,
            )

    def set_input_tensor(self, input_tensor: Any) -> None:
        """States of the stage before; megatron-core's schedules call it."""
        (states,) = input_tensor if isinstance(input_tensor, list) else [input_tensor]
        self.encoder.set_input_tensor(states)

    def forward(
        self,
        tokens_BS: Tensor,
        attends_BS: Tensor | None = None,
        types_BS: Tensor | None = None,
        *,
        runtime_gather_output: bool = False,
    ) -> Tensor | Encoded:
        """What the heads say; on all pipeline stages but the last, states [S, B, H].

        Args:
            tokens_BS: [B, S] int64.
            attends_BS: [B, S], 1 where a token is one, 0 where it fills up; None: all are.
            types_BS: [B, S] int64, the segment of each token; None: all of the first.
            runtime_gather_output: whether every tensor rank gets the logits of all tokens.
        """
        embedded_SBH = self._embedded(tokens_BS, types_BS) if self.pre_process else None
        states_SBH: Tensor = self.encoder(
            hidden_states=embedded_SBH, attention_mask=forbidden(attends_BS)
        )
        return self._said(states_SBH, runtime_gather_output) if self.post_process else states_SBH

    def _embedded(self, tokens_BS: Tensor, types_BS: Tensor | None) -> Tensor:
        positions_BS = torch.arange(tokens_BS.size(1), device=tokens_BS.device)
        if types_BS is None and self.has_types:
            types_BS = torch.zeros_like(tokens_BS)
        embedded: Tensor = self.embedding(tokens_BS, positions_BS.expand_as(tokens_BS), types_BS)
        return embedded

    def _said(self, states_SBH: Tensor, gather: bool) -> Encoded:
        pooled_BH = self.pooler(states_SBH) if self.pooler is not None else None
        follows_B2 = self.binary_head(pooled_BH) if self.binary_head is not None else None
        if self.lm_head is None:
            return Encoded(states_SBH, None, pooled_BH, follows_B2)
        tied = self.share_embeddings_and_output_weights
        weight = self.shared_embedding_or_output_weight() if tied else None
        logits_SBV, _ = self.output_layer(
            self.lm_head(states_SBH), weight=weight, runtime_gather_output=gather
        )
        logits_BSV = logits_SBV.transpose(0, 1).contiguous()
        return Encoded(states_SBH, logits_BSV, pooled_BH, follows_B2)

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: Any = (), metadata: Any = None
    ) -> dict[str, Any]:
        """megatron-core's; its part on output layers asks for one."""
        found: dict[str, Any]
        if self.post_process and self.lm_head is None:
            found = MegatronModule.sharded_state_dict(self, prefix, sharded_offsets, metadata)
        else:
            found = super().sharded_state_dict(prefix, sharded_offsets, metadata)
        return found


def open_layer_spec(model: ModelConfig) -> ModuleSpec:
    """A layer whose attention sees all that its mask leaves open."""
    spec = layer_spec(model)
    attention = spec.submodules.self_attention
    attention.submodules.core_attention = partial(OpenAttention, model=model)
    attention.params = {"attn_mask_type": AttnMaskType.padding}
    return spec
