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
    arXiv:2412.19437, section 2.1.2). Training moves it so that experts are equally busy."""
    fp32: bool = False
    """Whether the logits are computed in fp32 although the model is not (DeepSeek)."""

    def problems(self) -> Iterator[Problem]:
        """Groups that cannot be."""
        if self.groups_per_token > self.groups:
            yield "groups_per_token", f"{self.groups_per_token} is over groups = {self.groups}"
        if self.bias and self.score == "softmax":
            yield "bias", "true with score: softmax; megatron-core has it for sigmoid alone"

    def choice_problems(self, experts: int, chosen: int) -> Iterator[Problem]:
        """What cannot be with so many experts, of which each token visits `chosen`."""
        if experts % self.groups:
            yield "groups", f"{experts} experts cannot be dealt to {self.groups} equal groups"
            return
        size = experts // self.groups
        if size * self.groups_per_token < chosen:
            held = f"{self.groups_per_token} groups hold {size * self.groups_per_token} experts"
            yield "groups_per_token", f"{held}, of which a token visits {chosen}"
        if self.groups > 1 and self.group_score == "top2" and size < 2:
            yield "group_score", "top2 needs two experts or more in each group"
