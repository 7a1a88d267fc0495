"""The output layer, which can give losses without logits of all tokens at once.

Axis letters: S positions (this rank's with sequence parallelism), B sequences, H hidden,
R = S x B of all tensor ranks, V rows of the layer here. megatron-core puts positions first.
"""

from typing import Any

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
)
from torch import Tensor

from megatron_jobs.kernels.cap import soft_cap
from megatron_jobs.kernels.linear_loss import is_plain, linear_cross_entropy
from megatron_jobs.kernels.loss_ops import Terms


class OutputLayer(ColumnParallelLinear):  # type: ignore[misc]
    """megatron-core's, with a bound for logits, and losses where it is given labels."""

    cap: float | None = None
    """Logits become cap x tanh(logits / cap)."""

    def forward(
        self,
        input_: Tensor,
        weight: Tensor | None = None,
        runtime_gather_output: bool | None = None,
        *,
        labels_SB: Tensor | None = None,
        mask_SB: Tensor | None = None,
    ) -> Any:
        """(logits [S, B, V], None) as megatron-core has it, or with labels the losses [S, B].

        Args:
            input_: [S, B, H].
            weight: [V, H] of the embedding, where the layer has none of its own.
            runtime_gather_output: whether each tensor rank gets the logits of all tokens.
            labels_SB: int64, of all positions.
            mask_SB: what each loss will be multiplied by, up to one factor; None: not known.
        """
        if labels_SB is not None:
            return self.losses(input_, weight, labels_SB, mask_SB)
        logits, bias = super().forward(input_, weight, runtime_gather_output)
        return logits if self.cap is None else soft_cap(logits, self.cap), bias

    def losses(
        self, states_SBH: Tensor, weight: Tensor | None, labels_SB: Tensor, mask_SB: Tensor | None
    ) -> Tensor:
        """Losses [S, B] fp32, the same on every tensor rank."""
        if self.sequence_parallel:
            states_SBH = gather_from_sequence_parallel_region(states_SBH, group=self.tp_group)
        else:
            states_SBH = copy_to_tensor_model_parallel_region(states_SBH, group=self.tp_group)
        losses_R = linear_cross_entropy(
            states_SBH.flatten(0, 1),
            self.weight if weight is None else weight,
            labels_SB.flatten(),
            bias_V=self.bias,
            weights_R=None if mask_SB is None else self.scaled(mask_SB).flatten(),
            group=self.tp_group,
            terms=Terms(cap=self.cap or 0.0),
        )
        return losses_R.view_as(labels_SB)

    def scaled(self, mask_SB: Tensor) -> Tensor:
        """The mask times what losses are multiplied by before backward, lest fp16 lose digits."""
        scale = self.config.grad_scale_func
        if scale is None or not torch.is_grad_enabled():
            return mask_SB
        weights: Tensor = scale(mask_SB.float())
        return weights


def token_losses(
    *,
    hidden_states: Tensor,
    output_layer: OutputLayer,
    output_weight: Tensor | None,
    labels: Tensor,
    loss_mask: Tensor | None,
    compute_language_model_loss: Any,
    **others: Any,
) -> Tensor:
    """An `output_processor` of `GPTModel`: losses [B, S] fp32.

    Args:
        hidden_states: [S, B, H].
        labels: [B, S] int64.
        loss_mask: [B, S], what each loss will be multiplied by; None: not known.
    """
    weight = output_layer.weight if output_weight is None else output_weight
    if is_plain(hidden_states, weight, output_layer.bias):
        logits_SBV, _ = output_layer(hidden_states, weight=output_weight)
        plain: Tensor = compute_language_model_loss(labels, logits_SBV)
        return plain
    losses_SB: Tensor = output_layer(
        hidden_states,
        weight=output_weight,
        labels_SB=labels.t().contiguous(),
        mask_SB=None if loss_mask is None else loss_mask.t(),
    )
    return losses_SB.t().contiguous()
