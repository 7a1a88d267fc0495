"""Norms as modules. Axis letters: R rows, H columns, N heads here, D columns of a head."""

import torch
from megatron.core import parallel_state
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    reduce_from_tensor_model_parallel_region,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from megatron_jobs.kernels.norm import (
    add_layer_norm,
    add_rms_norm,
    layer_norm,
    rms_norm,
    rms_norm_of_squares,
    wide,
)
from megatron_jobs.parallel.device import engine_device


class Norm(nn.Module):
    """RMSNorm or LayerNorm, as megatron-core's layers make and call it.

    Every tensor rank holds the whole weight. With sequence parallelism each sees other rows, so
    its gradient must be summed over them: megatron-core does so where a parameter is marked
    `sequence_parallel`.
    """

    weight: nn.Parameter

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: object
    ) -> None:
        super().__init__()
        self.eps = eps
        self.offset: bool = config.layernorm_zero_centered_gamma
        place = {"dtype": config.params_dtype, "device": engine_device()}
        self.weight = nn.Parameter(torch.ones(hidden_size, **place))
        self.bias: nn.Parameter | None = None
        if config.normalization == "LayerNorm":
            self.bias = nn.Parameter(torch.zeros(hidden_size, **place))
        for parameter in self.parameters():
            parameter.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x_RH: Tensor) -> Tensor:
        """Each row normalised: [..., H] to [..., H]."""
        if self.bias is None:
            return rms_norm(x_RH, self.weight, eps=self.eps, offset=self.offset)
        return layer_norm(x_RH, self.weight, self.bias, eps=self.eps, offset=self.offset)

    def of_sum(self, x_RH: Tensor, residual_RH: Tensor) -> Tensor:
        """Each row of x + residual normalised: [..., H] twice to [..., H]."""
        if x_RH.dtype != residual_RH.dtype:
            return self.forward(x_RH + residual_RH)
        rows, eps, offset = (x_RH, residual_RH), self.eps, self.offset
        if self.bias is None:
            return add_rms_norm(*rows, self.weight, eps=eps, offset=offset)[0]
        return add_layer_norm(*rows, self.weight, self.bias, eps=eps, offset=offset)[0]


class HeadsNorm(Norm):
    """RMSNorm over all heads of a token together, of which each tensor rank has some.

    Every rank holds the whole weight here too, and reads its heads' part. megatron-core sums the
    gradients of what is called q_layernorm or k_layernorm over tensor ranks: it makes them whole.

    Args:
        heads: of all ranks.
        hidden_size: columns of one head.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, *, heads: int, eps: float = 1e-5
    ) -> None:
        super().__init__(config, heads * hidden_size, eps)
        assert self.bias is None, "over all heads there is RMSNorm only"

    def forward(self, x_RND: Tensor) -> Tensor:
        """Each token's heads normalised together: [..., N, D] to [..., N, D]."""
        x_RH = x_RND.flatten(-2)
        width = x_RH.size(-1)
        if width == len(self.weight):
            return super().forward(x_RH).view_as(x_RND)
        rank = int(parallel_state.get_tensor_model_parallel_rank())
        first = width * (rank // self._copies(width))
        weight_H = self.weight[first : first + width]
        square_R1 = self._mean_square(x_RH.to(wide(x_RH)))
        out = rms_norm_of_squares(x_RH, weight_H, square_R1, eps=self.eps, offset=self.offset)
        return out.view_as(x_RND)

    def _copies(self, width: int) -> int:
        """Ranks that share a head: over 1 where there are more of them than heads."""
        ranks = int(parallel_state.get_tensor_model_parallel_world_size())
        return ranks * width // len(self.weight)

    def _mean_square(self, x_RH: Tensor) -> Tensor:
        """Over the columns of all ranks; each rank's use of it adds to every rank's gradient."""
        columns = len(self.weight) * self._copies(x_RH.size(-1))
        own_R1 = x_RH.square().sum(-1, keepdim=True) / columns
        whole: Tensor = reduce_from_tensor_model_parallel_region(own_R1)
        shared: Tensor = copy_to_tensor_model_parallel_region(whole)
        return shared
