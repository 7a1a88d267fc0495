"""Names of the number formats a model may be trained in."""

from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
"""Of weights and activations. Optimizer state, and the weights it updates, are always fp32."""
