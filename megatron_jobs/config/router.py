"""How tokens are dealt to experts."""

from collections.abc import Iterator
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from megatron_jobs.config.settings import Problem, Settings


class RouterConfig(Settings):
    """The router of a mixture of experts. The defaults are Mixtral's (arXiv:2401.04088, 2.1)."""

    score: Literal["softmax", "sigmoid"] = "softmax"
    """Of the router's logits; sigmoid is DeepSeek-V3's."""
    normalize: bool = True
    """Whether the weights of a token's experts sum to one."""
    scale: PositiveFloat = 1.0
    """Multiplies the weights of the experts."""
    groups: PositiveInt = 1
    """Groups of experts, the best of which are chosen first."""
    groups_per_token: PositiveInt = 1
    """How many groups a token may visit."""
    group_score: Literal["max", "top2"] = "top2"
    """A group is as good as its best expert (DeepSeek-V2), or its best two together (V3)."""
    bias: bool = False
    """Whether a number for each expert is added when choosing, not when weighing (DeepSeek-V3,
    arXiv:2412.19437, section 2.1.2)."""

    def problems(self) -> Iterator[Problem]:
        """Groups that cannot be."""
        if self.groups_per_token > self.groups:
            yield "groups_per_token", f"{self.groups_per_token} is over groups = {self.groups}"
