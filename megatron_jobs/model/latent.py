"""Multi-head latent attention (DeepSeek): megatron-core's, with what it lacks without its GPU
libraries.

S positions, B sequences, I and O columns going in and out of a linear layer.
"""

from copy import copy
from typing import Any

import torch
from megatron.core.models.common.embeddings import RotaryEmbedding
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.multi_latent_attention import (
    MLASelfAttention,
    MLASelfAttentionSubmodules,
)
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.nn import functional

from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.model.attention import CausalAttention
from megatron_jobs.model.norm import Norm
from megatron_jobs.model.rope import Rope
from megatron_jobs.parallel.device import engine_device


class WholeLinear(nn.Module):
    """A linear layer that every tensor rank holds whole, over positions of its own.

    Its gradient must be summed over tensor ranks, as a norm's must: the mark tells megatron-core.
    """

    def __init__(self, config: TransformerConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        place = {"dtype": config.params_dtype, "device": engine_device()}
        self.weight = nn.Parameter(torch.empty(outputs, inputs, **place))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x_SBI: Tensor) -> tuple[Tensor, None]:
        """[S, B, I] to [S, B, O], and no bias, as megatron-core's linear layers give it."""
        return functional.linear(x_SBI, self.weight), None

    def get_extra_state(self) -> None:
        """Nothing; checkpoints of megatron-core's linear layers have a key for it."""

    def set_extra_state(self, state: object) -> None:
        """Nothing is to be restored."""


class LatentSelfAttention(MLASelfAttention):  # type: ignore[misc]
    """megatron-core's latent attention without Transformer Engine.

    The squeezing layers are whole on every tensor rank, as they are with Transformer Engine: cut by
    rows, as megatron-core's plain spec has them, each rank would learn from its own heads alone how
    to turn the key that all heads share.
    """

    def __init__(
        self,
        config: TransformerConfig,
        submodules: MLASelfAttentionSubmodules,
        *,
        model: ModelConfig,
        **given: Any,
    ) -> None:
        super().__init__(config, submodules, **given)
        latent = model.latent
        assert latent is not None, "no latent attention"
        keys = latent.kv_rank + latent.rope_dim
        self.linear_kv_down_proj = WholeLinear(config, model.hidden, keys)
        if latent.q_rank is not None:
            self.linear_q_down_proj = WholeLinear(config, model.hidden, latent.q_rank)
        if model.rope_scaling is not None:
            self.rotary_pos_emb = StretchedAngles(latent_rope(model), self.pg_collection.cp)
            # read at every step; megatron-core's own yarn, which it would make above, needs a GPU
            self.config = copy(config)
            self.config.rope_type = "yarn"

    def _resolve_qk_norm_config(self, submodules: MLASelfAttentionSubmodules) -> dict[str, Any]:
        """The modules of the spec; megatron-core would norm queries that are not squeezed too."""
        names = ("linear_q_proj", "linear_q_up_proj", "linear_kv_up_proj")
        return {name: getattr(submodules, name) for name in (*names, "q_layernorm", "kv_layernorm")}


class StretchedAngles(RotaryEmbedding):  # type: ignore[misc]
    """Rotary angles of our scalings, where megatron-core's latent attention asks for yarn's."""

    def __init__(self, rope: Rope, ranks: ProcessGroup) -> None:
        super().__init__(rope.columns, rotary_percent=1.0, rotary_base=rope.base, cp_group=ranks)
        self.inv_freq = rope.frequencies().to(engine_device())
        self.magnitude = rope.magnitude()

    def forward(
        self, max_seq_len: int, offset: int = 0, *, packed_seq: bool = False
    ) -> tuple[Tensor, float]:
        """Angles [S, 1, 1, rope_dim] of this rank's positions, magnitude of cosine and sine."""
        return super().forward(max_seq_len, offset, packed_seq), self.magnitude


def latent_rope(model: ModelConfig) -> Rope:
    """The angles of the columns that turn."""
    assert model.latent is not None, "no latent attention"
    return Rope(
        columns=model.latent.rope_dim,
        base=model.rope_base,
        scaling=model.rope_scaling,
        seq_len=model.seq_len,
        interleaved=model.rope_interleaved,
    )


def latent_spec(model: ModelConfig, latent: LatentAttention) -> ModuleSpec:
    """What builds a layer's attention."""

    def norm(config: TransformerConfig, hidden_size: int, **_: object) -> Norm:
        return Norm(config, hidden_size, latent.norm_eps)

    submodules = MLASelfAttentionSubmodules(
        linear_q_proj=ColumnParallelLinear,
        linear_q_down_proj=ColumnParallelLinear,
        linear_q_up_proj=ColumnParallelLinear,
        linear_kv_down_proj=ColumnParallelLinear,
        linear_kv_up_proj=ColumnParallelLinear,
        core_attention=ModuleSpec(module=CausalAttention, params={"model": model}),
        linear_proj=RowParallelLinear,
        q_layernorm=norm if latent.q_rank is not None else None,
        kv_layernorm=norm,
    )
    params = {"attn_mask_type": AttnMaskType.causal, "model": model}
    return ModuleSpec(module=LatentSelfAttention, params=params, submodules=submodules)


def latent_settings(model: ModelConfig) -> dict[str, Any]:
    """megatron-core's settings of latent attention; nothing for a model without."""
    latent, scaling = model.latent, model.rope_scaling
    if latent is None:
        return {}
    return {
        "q_lora_rank": latent.q_rank,
        "kv_lora_rank": latent.kv_rank,
        "qk_head_dim": latent.nope_dim,
        "qk_pos_emb_head_dim": latent.rope_dim,
        "v_head_dim": latent.value_dim,
        "rotary_base": model.rope_base,
        "rope_type": "rope",
        # of the scale of the scores alone; `StretchedAngles` reads ours
        "rotary_scaling_factor": latent_rope(model).factor(),
        "mscale_all_dim": (scaling.mscale_all_dim if scaling is not None else None) or 0.0,
    }
