"""Cures for what megatron-core 0.19 gets wrong without Transformer Engine and apex, silently.

The checkpoint code calls `prepare_for_save`, `prepare_optimizer_for_load` and
`mend_optimizer_after_load`; `install_cures` is called where the optimizer is built.
"""

import functools
import queue
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor


@functools.cache
def install_cures() -> None:
    """Let the distributed optimizer load the state of torch's AdamW, once.

    torch counts steps in a tensor for each parameter. megatron-core copies each tensor of the
    state, and finds no `step` among those it has read; told that it is no tensor, it goes on.
    """
    copy_states = DistributedOptimizer._set_main_param_and_optimizer_states

    def copy_all_but_step(self: Any, parameter: Tensor, tensors: dict[str, Any]) -> None:
        copy_states(self, parameter, {"step": None} | tensors)

    DistributedOptimizer._set_main_param_and_optimizer_states = copy_all_but_step


def prepare_optimizer_for_load(optimizer: Any) -> None:
    """Give every parameter the state of an AdamW that has not stepped: loading fills what is there.

    Call it before `optimizer.sharded_state_dict(..., is_loading=True)`.
    """
    for parameter, state in _states(optimizer):
        if not state:
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            state.update(step=torch.tensor(0.0), **moments)


def mend_optimizer_after_load(optimizer: Any) -> None:
    """Give each parameter a step of its own; call it after `optimizer.load_state_dict`.

    megatron-core hands all of them one tensor, and AdamW would count it up once a parameter.
    """
    for _, state in _states(optimizer):
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()


def prepare_for_save(chunks: Sequence[Any]) -> None:
    """Bring the weights of wrapped chunks up to date, and give the writer a queue in this process.

    The writer of a synchronous save is this very process, in threads. The queue it would make
    starts another interpreter for each rank (8-17 s on 8 ranks), which outlives a killed rank.
    """
    finish_parameters(chunks)
    if filesystem_async._results_queue is None:
        filesystem_async._results_queue = queue.Queue()


def finish_parameters(chunks: Sequence[Any]) -> None:
    """Wait for weights still being gathered (`mesh.overlap`); until then they are a step old."""
    for chunk in chunks:
        if hasattr(chunk, "ddp_config") and chunk.ddp_config.overlap_param_gather:
            chunk.disable_forward_pre_hook(param_sync=True)
            chunk.enable_forward_pre_hook()


def unwrap(chunk: Any) -> Any:
    """The `GPTModel` inside a wrapped chunk; a bare one is given back."""
    while hasattr(chunk, "module"):
        chunk = chunk.module
    return chunk


def _states(optimizer: Any) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """(fp32 parameter, its state) of every torch optimizer inside."""
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for group in part.optimizer.param_groups if part.optimizer else []:
            for parameter in group["params"]:
                yield parameter, part.optimizer.state[parameter]
