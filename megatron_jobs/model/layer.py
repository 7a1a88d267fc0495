"""A transformer layer whose norms and residual streams megatron-core's own does not know.

x the residual stream, f attention or feed-forward block, n a norm after it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
)
from torch import Tensor, nn
from torch.nn import functional

from megatron_jobs.kernels.residual import bias_dropout_add
from megatron_jobs.model.norm import Norm

Output = tuple[Tensor, Tensor | None]
"""What attention or a feed-forward block gives: values, and a bias yet to be added."""
Add = Callable[[Output, Tensor, float], Tensor]
Place = Literal["before", "after", "both", "residual"]


class Layer(TransformerLayer):  # type: ignore[misc]
    """A layer with norms after its parts, or whose parts read the same stream.

    Args:
        place: `ModelConfig.norm_place`; norms before the parts are among the submodules.
        parallel: `ModelConfig.parallel_residual`.
    """

    def __init__(
        self,
        config: TransformerConfig,
        submodules: TransformerLayerSubmodules,
        *,
        place: Place,
        parallel: bool,
        **given: Any,
    ) -> None:
        super().__init__(config, submodules, **given)
        self.parallel = parallel
        if place == "before":
            return
        add = add_then_norm if place == "residual" else norm_then_add
        self.post_self_attn_layernorm = Norm(config, config.hidden_size, config.layernorm_epsilon)
        self.post_mlp_layernorm = Norm(config, config.hidden_size, config.layernorm_epsilon)
        self.self_attn_bda = partial(add, self.post_self_attn_layernorm)
        self.mlp_bda = partial(add, self.post_mlp_layernorm)

    def forward(self, hidden_states: Tensor, *args: Any, **given: Any) -> tuple[Tensor, Any]:
        """The stream after this layer, and megatron-core's context, which is None."""
        if not self.parallel:
            return super().forward(hidden_states, *args, **given)  # type: ignore[no-any-return]
        with_attention, context = self._forward_attention(hidden_states, *args, **given)
        output = self.mlp(self._forward_pre_mlp_layernorm(hidden_states))
        return self._forward_post_mlp(output, with_attention), context


def drop_then_add(training: bool, fused: bool) -> Add:
    """x + f: what megatron-core calls to add an output to the stream."""

    def add(output: Output, residual: Tensor, dropout: float) -> Tensor:
        share = dropout if training else 0.0
        return bias_dropout_add(*output, residual, dropout=share)

    return add


def norm_then_add(norm: nn.Module, training: bool, fused: bool) -> Add:
    """x + n(f)."""

    def add(output: Output, residual: Tensor, dropout: float) -> Tensor:
        return residual + functional.dropout(norm(with_bias(output)), dropout, training)

    return add


def add_then_norm(norm: Norm, training: bool, fused: bool) -> Add:
    """n(x + f). Source: Vaswani et al. 2017, section 3.1, arXiv:1706.03762."""

    def add(output: Output, residual: Tensor, dropout: float) -> Tensor:
        return norm.of_sum(functional.dropout(with_bias(output), dropout, training), residual)

    return add


def with_bias(output: Output) -> Tensor:
    """Values with the bias that was kept apart."""
    values, bias = output
    return values if bias is None else values + bias
