"""The state of a training run as megatron-core's sharded tensors, and as one hash a rank."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state, tensor_parallel

from megatron_jobs.parallel.cures import unwrap


@dataclass(frozen=True)
class Training:
    """What is saved and loaded; the chunks of one rank's model, and its optimizer."""

    chunks: list[Any]
    optimizer: Any | None
    """None: weights only."""
    layout: dict[str, int | bool]
    """Ranks and mesh."""


def content_metadata() -> dict[str, Any]:
    """How megatron-core lays out the optimizer's state: so that any other mesh can read it."""
    return {
        "distrib_optim_sharding_type": "fully_reshardable",
        "distrib_optim_fully_reshardable_mem_efficient": False,
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
    for chunk in training.chunks:
        yield from (parameter.detach() for parameter in unwrap(chunk).parameters())
    for inner in inner_optimizers(training.optimizer):
        for group in inner.param_groups:
            for parameter in group["params"]:
                yield parameter.detach()
                state = inner.state[parameter]
                for name in sorted(state):
                    value = state[name]
                    yield value if torch.is_tensor(value) else torch.tensor(float(value))


def inner_optimizers(optimizer: Any | None) -> Iterator[Any]:
    """The torch optimizers below megatron-core's (chained) distributed optimizer."""
    if optimizer is None:
        return
    for wrapped in getattr(optimizer, "chained_optimizers", [optimizer]):
        if wrapped.optimizer is not None:
            yield wrapped.optimizer


def fingerprint(training: Training) -> str:
    """SHA-256 of this rank's state: shapes, dtypes and bytes of every tensor."""
    digest = hashlib.sha256()
    for tensor in state_tensors(training):
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def state_bytes(training: Training) -> int:
    """Bytes of this rank's share of a checkpoint, about: replicas of the weights are counted."""
    return sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(training))


def random_state() -> dict[str, Any]:
    """This rank's random generators: torch's, and megatron-core's of each parallel region."""
    tracker = tensor_parallel.get_cuda_rng_tracker()
    return {"torch": torch.get_rng_state(), "regions": dict(tracker.get_states())}


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    tensor_parallel.get_cuda_rng_tracker().set_states(state["regions"])
