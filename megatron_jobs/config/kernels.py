"""Which form each kernel takes."""

from typing import Literal

from megatron_jobs.config.settings import Settings

Choice = Literal["auto", "reference", "fused"]
"""auto: fused where it is built and knows the tensors, and says once where it is not; reference:
plain torch; fused: an error where auto would fall back."""


class KernelsConfig(Settings):
    """Fused kernels: each one `auto`, `reference` or `fused`.

    Results are the same but for rounding.
    """

    norm: Choice = "auto"
    """RMSNorm and LayerNorm."""
    activation: Choice = "auto"
    """SwiGLU, GeGLU and GELU, with their bias."""
    rope: Choice = "auto"
    """Rotary positions of queries and keys."""
    loss: Choice = "auto"
    """Cross-entropy over a vocabulary that is cut over tensor ranks."""
    softmax: Choice = "auto"
    """Softmax of scaled, masked scores."""
    attention: Choice = "auto"
    """Causal attention on the CPU; CUDA has torch's own."""
    adam: Choice = "auto"
    """AdamW over all parameters, their norm, scale and check for NaN."""
    gradients: Choice = "auto"
    """Weight gradients added to the fp32 sums of a batch."""
    experts: Choice = "auto"
    """Choice of experts, and tokens brought to them and back."""
    residual: Choice = "auto"
    """Bias, dropout and addition to the residual stream."""
