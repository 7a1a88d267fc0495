"""The state of a training run as megatron-core's sharded tensors, and as one hash a rank."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

from megatron_jobs.parallel.cures import optimizer_states, unwrap
from megatron_jobs.parallel.device import random_state_of_device, set_random_state_of_device


@dataclass(frozen=True)
class Training:
    """What is saved and loaded; the chunks of one rank's model, and its optimizer."""

    chunks: list[Any]
    optimizer: Any | None
    """None: weights only."""
    layout: dict[str, int | bool | str]
    """Device, ranks and mesh."""


def content_metadata() -> dict[str, Any]:
    """How megatron-core lays out the optimizer's state: so that any other mesh can read it."""
    return {
        "distrib_optim_sharding_type": "fully_reshardable",
        "distrib_optim_fully_reshardable_mem_efficient": True,
        "singleton_local_shards": False,
        "chained_optim_avoid_prefix": True,
    }


def sharded_state(training: Training, *, loading: bool) -> dict[str, Any]:
    """The state dict that `dist_checkpointing` saves, or fills."""
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    metadata = content_metadata() | {"dp_cp_group": group}
    state: dict[str, Any] = {}
    for name, chunk in chunk_names(training.chunks):
        state[name] = unwrap(chunk).sharded_state_dict(metadata=metadata)
    if training.optimizer is not None:
        state["optimizer"] = training.optimizer.sharded_state_dict(
            dict(state), is_loading=loading, metadata=metadata
        )
    return state


def chunk_names(chunks: list[Any]) -> Iterator[tuple[str, Any]]:
    """Each chunk with its key: `model`; `model0`, `model1`, ... when interleaved."""
    for place, chunk in enumerate(chunks):
        yield ("model" if len(chunks) == 1 else f"model{place}"), chunk


def state_tensors(training: Training) -> Iterator[torch.Tensor]:
    """Every tensor of this rank that training changes, in a fixed order."""
    yield from weights(training)
    for parameter, state in optimizer_states(training.optimizer):
        yield parameter.detach()
        yield from (torch.as_tensor(state[name]) for name in sorted(state))


def weights(training: Training) -> Iterator[torch.Tensor]:
    """The parameters of this rank's chunks, and the biases of experts that training moves."""
    for chunk in training.chunks:
        yield from unwrap(chunk).parameters()
        buffers = unwrap(chunk).named_buffers()
        yield from (bias for name, bias in buffers if name.endswith("router.expert_bias"))


def fingerprint(training: Training) -> str:
    """SHA-256 of this rank's state: shapes, dtypes and bytes of every tensor."""
    digest = hashlib.sha256()
    for tensor in state_tensors(training):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def share_bytes(training: Training) -> int:
    """Bytes that this rank adds to a checkpoint: weights that others hold too count for one."""
    every = sum(map(size_of, state_tensors(training)))
    return every - sum(size_of(weight) for weight in weights(training) if not is_first(weight))


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


def is_first(weight: torch.Tensor) -> bool:
    """Whether this rank is the first of the data ranks that hold a parameter."""
    if getattr(weight, "allreduce", True):
        group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    else:  # megatron-core's mark of an expert's parameter
        group = parallel_state.get_expert_data_parallel_group()
    return dist.get_rank(group) == 0


def random_state() -> dict[str, Any]:
    """This rank's random generators: torch's, the device's, megatron-core's of each region."""
    return {
        "torch": torch.get_rng_state(),
        "device": random_state_of_device(),
        "regions": dict(tensor_parallel.get_cuda_rng_tracker().get_states()),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    set_random_state_of_device(state["device"])
    tensor_parallel.get_cuda_rng_tracker().set_states(state["regions"])
