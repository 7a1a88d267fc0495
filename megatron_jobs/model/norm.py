"""Norms as modules. Axis letters: R rows, H columns."""

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor, nn

from megatron_jobs.kernels.norm import layer_norm, rms_norm
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
            return rms_norm(x_RH, self.weight, eps=self.eps)
        return layer_norm(x_RH, self.weight, self.bias, eps=self.eps)
