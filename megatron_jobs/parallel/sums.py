"""Where the gradients of a batch add up: fp32 sums, each written first and added to afterwards."""

from collections.abc import Callable
from functools import partial
from typing import Any

from megatron.core.distributed import DistributedDataParallel

from megatron_jobs.kernels.gradients import add_gradient


class Sums(DistributedDataParallel):  # type: ignore[misc]
    """megatron-core's, whose sums need not be cleared: the first gradient of a step is written.

    A parameter that got none has its sum cleared before it is shared.
    """

    def __init__(self, *args: Any, **words: Any) -> None:
        self.unwritten: set[Any] = set()
        """Parameters whose sums are those of the last step."""
        super().__init__(*args, **words)
        if self.config.gradient_accumulation_fusion:
            for parameter in self.params_with_grad:
                parameter.main_grad.begins = partial(self.begins, parameter)
        for group in self.bucket_groups + self.expert_parallel_bucket_groups:
            group.start_grad_sync = self._clearing(group, group.start_grad_sync)

    def begins(self, parameter: Any) -> bool:
        """Whether its sum has nothing of this step; from now on it has. For `products`."""
        first = parameter in self.unwritten
        self.unwritten.discard(parameter)
        return first

    def zero_grad_buffer(self) -> None:
        """To be called before the first gradient of a step."""
        for parameter in self.params_with_grad:
            parameter.grad_added_to_main_grad = False
        for group in self.bucket_groups + self.expert_parallel_bucket_groups:
            group.reset()
        self.unwritten.update(self.params_with_grad)

    def _make_backward_post_hook(self, param: Any) -> Callable[..., None]:
        """What is called when autograd has a gradient of `param`."""

        def hook(*unused: Any) -> None:
            if param.grad is not None and not is_dummy(param):
                add_gradient(param.main_grad, param.grad, first=param in self.unwritten)
                self.unwritten.discard(param)
            param.grad = None
            if self.ddp_config.overlap_grad_reduce:
                group = self.param_to_bucket_group[param]
                group.register_grad_ready(param, self.force_all_reduce)

        return hook

    def _clearing(self, group: Any, start: Callable[..., None]) -> Callable[..., None]:
        """`start` of a group of parameters, all of whose sums are then of this step."""

        def cleared(*args: Any, **words: Any) -> None:
            for parameter in self.unwritten.intersection(group.params):
                parameter.main_grad.zero_()
                self.unwritten.discard(parameter)
            start(*args, **words)

        return cleared


def is_dummy(parameter: Any) -> bool:
    """Whether its `grad` has no meaning: the layer itself added it to the sum (`products`).

    That of a weight of two layers is what the other one gave, megatron-core adds zeros to it.
    """
    added: bool = parameter.grad_added_to_main_grad
    return added and not getattr(parameter, "zero_out_wgrad", False)
