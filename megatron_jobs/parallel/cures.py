"""Cures for what megatron-core 0.19 gets wrong without Transformer Engine and apex, silently.

The checkpoint code calls `prepare_for_save`, `writer_errors`, `fill_optimizer_state` and
`mend_optimizer_after_load`; `install_cures` is called where the optimizer is built.
"""

import contextlib
import functools
import queue
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from megatron.core.dist_checkpointing import serialization
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from torch import Tensor

from megatron_jobs.parallel.device import replace


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


def fill_optimizer_state(optimizer: Any) -> None:
    """Give each parameter that has none the state of an AdamW that has not stepped.

    Call it before `optimizer.sharded_state_dict`: loading fills what is there, and before the first
    step there is nothing that could be saved.
    """
    for parameter, state in optimizer_states(optimizer):
        if not state:
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            state.update(step=torch.tensor(0.0), **moments)


def mend_optimizer_after_load(optimizer: Any) -> None:
    """Give each parameter a step of its own; call it after `optimizer.load_state_dict`.

    megatron-core hands all of them one tensor, and AdamW would count it up once a parameter.
    """
    for _, state in optimizer_states(optimizer):
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].clone()


def refresh_optimizer(optimizer: Any) -> None:
    """Let the weights that are updated be those of the model, after it was loaded by itself."""
    optimizer.reload_model_params()


def prepare_for_save(chunks: Sequence[Any]) -> None:
    """Bring the weights of wrapped chunks up to date, and give the writer a queue in this process.

    The writer of a synchronous save is this very process, in threads. The queue it would make
    starts another interpreter for each rank (8-17 s on 8 ranks), which outlives a killed rank.
    """
    finish_parameters(chunks)
    if filesystem_async._results_queue is None:
        filesystem_async._results_queue = queue.Queue()


@contextlib.contextmanager
def writer_errors() -> Iterator[list[Exception]]:
    """What goes wrong in a save inside, kept for after its last collective; look when leaving.

    Of an error in a file of tensors megatron-core tells only the type. One in .metadata or in
    metadata.json ends rank 0 alone, while the others wait for it until they time out.
    """
    errors: list[Exception] = []
    writer = filesystem_async.FileSystemWriterAsync
    write, finish, configure = writer.write_preloaded_data, writer.finish, serialization.save_config

    def written(*args: Any, **words: Any) -> Any:
        place, results = write(*args, **words)
        if not isinstance(results, Exception):
            return place, results
        errors.append(results)
        return place, []

    def keeping(work: Callable[..., None]) -> Callable[..., None]:
        def done(*args: Any) -> None:
            try:
                work(*args)
            except OSError as error:
                errors.append(error)

        return done

    replace(writer, write_preloaded_data=staticmethod(written), finish=keeping(finish))
    replace(serialization, save_config=keeping(configure))
    try:
        yield errors
    finally:
        replace(writer, write_preloaded_data=staticmethod(write), finish=finish)
        replace(serialization, save_config=configure)


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


def optimizer_states(optimizer: Any | None) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """(fp32 parameter, its state) of every torch optimizer inside; none of None."""
    if optimizer is None:
        return
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        for group in part.optimizer.param_groups if part.optimizer else []:
            for parameter in group["params"]:
                yield parameter, part.optimizer.state[parameter]
