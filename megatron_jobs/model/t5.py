"""T5: an encoder, and a decoder that reads its end; tokens know their distances by learned numbers.

Source: Raffel et al. 2019, arXiv:1910.10683. Axis letters: B sequences, S positions of the encoder,
T of the decoder, Q queries, K keys, N heads here, H hidden, V rows of the output layer.
megatron-core puts positions first: [S, B, H].
"""

from copy import copy
from functools import partial
from typing import Any

from megatron.core.enums import ModelType
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.models.common.embeddings.relative_pos_embedding import RelativePositionEmbedding
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.tensor_parallel.mappings import scatter_to_tensor_model_parallel_region
from megatron.core.transformer.attention import CrossAttention, CrossAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlock, TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.model.bert import open_layer_spec
from megatron_jobs.model.norm import Norm
from megatron_jobs.model.open_attention import OpenAttention, forbidden


class T5Model(LanguageModule):  # type: ignore[misc]
    """Encoder, decoder and output layer; all on one pipeline stage.

    Args:
        config: megatron-core's, with the number of layers of the decoder.
    """

    pre_process = post_process = True
    """There is one stage."""

    def __init__(self, model: ModelConfig, config: TransformerConfig) -> None:
        super().__init__(config=config)
        self.vp_stage = None
        self.model_type = ModelType.encoder_or_decoder
        self.logit_scale = model.logit_scale
        self.share_embeddings_and_output_weights = model.tied
        self.embedding = LanguageModelEmbedding(
            config=config,
            vocab_size=model.padded_vocab(),
            max_sequence_length=model.seq_len,
            position_embedding_type="none",
        )
        self.encoder_relative_pos_emb = distances(model, config, both_ways=True)
        self.decoder_relative_pos_emb = distances(model, config, both_ways=False)
        encoder_config = copy(config)
        encoder_config.num_layers = model.encoder_layers
        encoder_specs = [open_layer_spec(model)] * model.encoder_layers
        self.encoder = block(encoder_config, encoder_specs)
        self.decoder = block(config, [reading_layer_spec(model)] * model.layers)
        self.output_layer = ColumnParallelLinear(
            model.hidden,
            model.padded_vocab(),
            config=config,
            init_method=config.init_method,
            bias=False,
            gather_output=False,
            skip_weight_param_allocation=model.tied,
        )
        self.setup_embeddings_and_output_layer()

    def set_input_tensor(self, input_tensor: Any) -> None:
        """megatron-core's schedules call it; there is no stage before."""

    def encode(self, tokens_BS: Tensor, attends_BS: Tensor | None = None) -> Tensor:
        """What the decoder reads [S, B, H]; cut along S with sequence parallelism."""
        encoded: Tensor = self.encoder(
            hidden_states=self.embedding(tokens_BS, None),
            attention_mask=forbidden(attends_BS),
            attention_bias=own_heads(self.encoder_relative_pos_emb, tokens_BS.size(1)),
        )
        return encoded

    def forward(
        self,
        tokens_BS: Tensor,
        decoder_tokens_BT: Tensor,
        attends_BS: Tensor | None = None,
        *,
        encoded_SBH: Tensor | None = None,
        runtime_gather_output: bool = False,
    ) -> Tensor:
        """Logits [B, T, V] of what follows each token of the decoder; V cut over tensor ranks.

        Args:
            tokens_BS: [B, S] int64, what the encoder reads.
            decoder_tokens_BT: [B, T] int64; it begins with the token that begins all.
            attends_BS: [B, S], 1 where a token is one, 0 where it fills up; None: all are.
            encoded_SBH: what `encode` gave of `tokens_BS`, where it is known.
            runtime_gather_output: whether every tensor rank gets the logits of all tokens.
        """
        if encoded_SBH is None:
            encoded_SBH = self.encode(tokens_BS, attends_BS)
        states_TBH = self.decoder(
            hidden_states=self.embedding(decoder_tokens_BT, None),
            attention_mask=None,
            context=encoded_SBH,
            context_mask=forbidden(attends_BS),
            attention_bias=own_heads(self.decoder_relative_pos_emb, decoder_tokens_BT.size(1)),
        )
        if self.logit_scale is not None:
            states_TBH = states_TBH * self.logit_scale
        tied = self.share_embeddings_and_output_weights
        weight = self.shared_embedding_or_output_weight() if tied else None
        logits_TBV, _ = self.output_layer(
            states_TBH, weight=weight, runtime_gather_output=runtime_gather_output
        )
        logits_BTV: Tensor = logits_TBV.transpose(0, 1).contiguous()
        return logits_BTV


def distances(
    model: ModelConfig, config: TransformerConfig, *, both_ways: bool
) -> RelativePositionEmbedding:
    """The numbers of an encoder's or a decoder's distances, which all its layers share."""
    return RelativePositionEmbedding(
        bidirectional=both_ways,
        init_method=config.init_method,
        num_attention_heads=model.heads,
        relative_attention_num_buckets=model.relative_buckets,
        relative_attention_max_distance=model.relative_distance,
    )


def own_heads(distances: RelativePositionEmbedding, length: int) -> Tensor:
    """What is added to the scores of this tensor rank's heads [1, N, Q, K]."""
    whole_1QKN = distances(length, length).permute(0, 2, 3, 1).contiguous()
    own_1QKN: Tensor = scatter_to_tensor_model_parallel_region(whole_1QKN)
    return own_1QKN.permute(0, 3, 1, 2)


def block(config: TransformerConfig, specs: list[ModuleSpec]) -> TransformerBlock:
    """Layers and the norm after them."""
    submodules = TransformerBlockSubmodules(layer_specs=specs, layer_norm=Norm)
    return TransformerBlock(config=config, spec=submodules, pre_process=True, post_process=True)


def reading_layer_spec(model: ModelConfig) -> ModuleSpec:
    """A layer of the decoder: attention to what came before, to the encoder's end, feed-forward."""
    spec = open_layer_spec(model)
    spec.submodules.self_attention.params = {"attn_mask_type": AttnMaskType.causal}
    spec.submodules.pre_cross_attn_layernorm = Norm
    spec.submodules.cross_attention = ModuleSpec(
        module=CrossAttention,
        params={"attn_mask_type": AttnMaskType.padding},
        submodules=CrossAttentionSubmodules(
            linear_q=ColumnParallelLinear,
            linear_kv=ColumnParallelLinear,
            core_attention=partial(OpenAttention, model=model),
            linear_proj=RowParallelLinear,
        ),
    )
    spec.submodules.cross_attn_bda = get_bias_dropout_add
    return spec
