"""The feed-forward block of a layer."""

from collections.abc import Callable

from megatron.core.transformer.mlp import MLP
from torch import Tensor, nn
from torch.nn import functional

from megatron_jobs.kernels.activation import geglu, geglu_tanh, gelu, gelu_tanh, swiglu


def relu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The positive part of x + bias."""
    return functional.relu(x if bias is None else x + bias)


ACTIVATIONS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "swiglu": swiglu,
    "geglu": geglu,
    "geglu_tanh": geglu_tanh,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
}


class Activation(nn.Module):
    """An activation of `kernels` between the two matrices of a feed-forward block."""

    def __init__(self, name: str, **_: object) -> None:
        super().__init__()
        self.function = ACTIVATIONS[name]

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[..., inner] to [..., ffn]; the bias [inner] is added first."""
        return self.function(x, bias)


class FeedForward(MLP):  # type: ignore[misc]
    """megatron-core's block; the first bias is left to the activation, which reads x once.

    Experts, whose outputs are weighted, are megatron-core's own.
    """

    def forward(
        self, hidden_states: Tensor, per_token_scale: Tensor | None = None, **given: object
    ) -> tuple[Tensor, Tensor | None]:
        """(values, a bias yet to be added)."""
        if per_token_scale is not None:
            out: tuple[Tensor, Tensor | None]
            out = super().forward(hidden_states, per_token_scale, **given)
            return out
        inner, inner_bias = self.linear_fc1(hidden_states)
        values, bias = self.linear_fc2(self.activation_func(inner, inner_bias))
        return values, bias
