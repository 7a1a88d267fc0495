"""torch's AdamW with its step in one pass, inside megatron-core's distributed optimizer."""

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from megatron.core.optimizer import clip_grads
from megatron.core.utils import local_multi_tensor_l2_norm
from torch import Tensor

from megatron_jobs.kernels.adam import (
    AdamRule,
    AdamTensors,
    adam_step,
    are_fused,
    is_fused,
    norm_tensor,
    unknown_of,
)
from megatron_jobs.parallel.device import replace


class FusedAdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`: its settings, its state, its checkpoints; another `step`.

    With `kernels.adam: reference`, and where the fused form is not made for the parameters, the
    step is torch's.
    """

    factor = 1.0
    """What the next step multiplies gradients by."""
    wrote_copies = False
    """Whether the last step wrote the copies as well."""

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.copies: dict[Tensor, Tensor] = {}
        """Parameter -> what the model reads, which is to be written after a step."""

    def is_fused(self) -> bool:
        """Whether the next step is one pass."""
        if any(group["amsgrad"] or group["maximize"] for group in self.param_groups):
            return False
        moved = [of for group in self.param_groups for of in group["params"] if of.grad is not None]
        return bool(moved) and is_fused(*moved[:1], unknown=self._hindrance(moved))

    def _hindrance(self, moved: list[Tensor]) -> str | None:
        """What the fused form does not know of what is moved; None if nothing."""
        device, slopes = moved[0].device, defaultdict(list)
        for parameter in moved:
            assert parameter.grad is not None
            slopes[parameter.grad.dtype].append(parameter.grad)
        found = unknown_of(moved, device, torch.float32, what="parameters")
        for gradients in slopes.values():
            found = found or unknown_of(gradients, device, what="gradients")
        return found

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have gradients once."""
        factor, self.factor = self.factor, 1.0
        self.wrote_copies = closure is None and self.is_fused()
        if not self.wrote_copies:
            assert factor == 1.0, (
                f"gradients are to be multiplied by {factor}, which torch does not"
            )
            return super().step(closure)
        for group in self.param_groups:
            for (step, *_), parameters in self._by_step(group).items():
                adam_step(self._tensors(parameters), rule_of(group, step, factor))
        return None

    def _by_step(self, group: dict[str, Any]) -> dict[tuple[int, Any, Any], list[Tensor]]:
        """Parameters that take the same step: its number, and the dtypes of the tensors."""
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        found = defaultdict(list)
        for parameter, step in zip(moved, self._next_steps(moved), strict=True):
            copy = self.copies.get(parameter)
            kind = None if copy is None else copy.dtype
            found[int(step), parameter.grad.dtype, kind].append(parameter)
        return found

    def _next_steps(self, moved: list[Tensor]) -> list[float]:
        """Count the step of each; all at a time, for there may be hundreds of small ones."""
        if not moved:
            return []
        steps = []
        for parameter in moved:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            steps.append(state["step"])
        torch._foreach_add_(steps, torch.ones(()))  # of a number, each would make a tensor
        numbers: list[float] = torch.stack(steps).tolist()
        return numbers

    def _tensors(self, parameters: list[Tensor]) -> AdamTensors:
        states = [self.state[parameter] for parameter in parameters]
        return AdamTensors(
            parameters=parameters,
            gradients=[parameter.grad for parameter in parameters],  # type: ignore[misc]
            first=[state["exp_avg"] for state in states],
            second=[state["exp_avg_sq"] for state in states],
            rounded=[self.copies[each] for each in parameters if each in self.copies],
        )


def rule_of(group: dict[str, Any], step: int, factor: float) -> AdamRule:
    """The settings of a group of torch's."""
    beta1, beta2 = group["betas"]
    return AdamRule(
        lr=float(group["lr"]),
        beta1=beta1,
        beta2=beta2,
        eps=group["eps"],
        decay=group["weight_decay"],
        step=step,
        factor=factor,
    )


@contextlib.contextmanager
def fused_adamw() -> Iterator[None]:
    """Inside, what megatron-core takes for torch's AdamW is `FusedAdamW`.

    It takes that of apex or Transformer Engine where they are installed, now as before.
    """
    plain = torch.optim.AdamW
    replace(torch.optim, AdamW=FusedAdamW)
    try:
        yield
    finally:
        replace(torch.optim, AdamW=plain)


@functools.cache
def install_norm() -> None:
    """Let megatron-core take norms of gradients in one pass, where it has torch's alone."""
    if clip_grads.l2_norm_impl is local_multi_tensor_l2_norm:
        replace(clip_grads, l2_norm_impl=l2_norm)


def l2_norm(
    chunk: int, flag: Tensor, lists: list[list[Tensor]], *rest: Any
) -> tuple[Tensor, Tensor | None]:
    """The norm of all tensors together, called as `amp_C.multi_tensor_l2norm` of apex."""
    (tensors,) = lists
    if not (tensors and are_fused(tensors)):
        found: tuple[Tensor, None] = local_multi_tensor_l2_norm(chunk, flag, lists, *rest)
        return found
    return norm_tensor(tensors), None


def write_copies_in_step(part: Any) -> None:
    """Let a step of a distributed optimizer write the weights that the model reads, in its pass.

    Weights in fp32 are those of the model already; megatron-core would copy them onto themselves.
    """
    inner = part.optimizer
    if not isinstance(inner, FusedAdamW):
        return
    inner.copies = dict(copies_of(part))
    copy_after = part._copy_main_params_to_model_params
    part._copy_main_params_to_model_params = lambda: None if inner.wrote_copies else copy_after()


def copies_of(part: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """(fp32 parameter of this rank, the same stretch of the model's weights), where they differ."""
    owned = [*part.shard_fp32_from_float16_groups, *part.shard_fp32_groups]
    read = [*part.model_float16_groups, *part.model_fp32_groups]
    for own_group, read_group in zip(owned, read, strict=True):
        for own, weight in zip(own_group, read_group, strict=True):
            stretch = part._get_model_param_range_map(weight)["gbuf_world_in_bucket"]
            buffer, _, bucket = part.model_param_gbuf_map[weight]
            whole = part.buffers[buffer].buckets[bucket].param_data.view(-1)
            copy = whole[stretch.start : stretch.end].detach()
            if copy.data_ptr() != own.data_ptr():
                yield own, copy
