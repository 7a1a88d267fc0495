"""Process groups: how the ranks of a job find each other, and which of them work together."""

import datetime
import os
import random
import socket
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.parallel.device import has_gpu, use_local_device
from megatron_jobs.parallel.store import close_store, has_many_nodes, open_store
from megatron_jobs.runtime.rank import Rank

SEED_STRIDE = 10_007
"""Between the seeds of two ranks; megatron-core adds up to some thousands of its own."""


def connect(rank: Rank, meet: Path, *, seconds: float = 600) -> None:
    """Join this process to the others of its job; it returns when all are there.

    Args:
        rank: which process this is; `rank.attempt` keeps this start apart from earlier ones.
        meet: a folder that all ranks see. The leader leaves its address there.
        seconds: how long a rank waits for the others, here and in every collective.
    """
    use_local_device(rank.local)
    if rank.nodes == 1 and ("lo" in (name for _, name in socket.if_nameindex())):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no network is needed on one machine
    if has_many_nodes(rank):  # else gloo joins every pair of ranks at once
        os.environ.setdefault("TORCH_GLOO_LAZY_INIT", "1")
    limit = datetime.timedelta(seconds=seconds)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if has_gpu() else "gloo",
        store=open_store(rank, meet, limit),
        rank=rank.index,
        world_size=rank.world,
        timeout=limit,
    )


def open_groups(mesh: Mesh, seed: int, *, seconds: float = 600) -> None:
    """Deal out the connected ranks to the axes of `mesh`, and seed their random numbers.

    A collective that waits longer than `seconds` for a rank fails.

    Ranks with other data or other layers draw other numbers. Tensor-parallel ranks draw the same,
    except where their parts of a tensor differ.
    """
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=mesh.tensor,
        pipeline_model_parallel_size=mesh.pipeline,
        virtual_pipeline_model_parallel_size=mesh.virtual if mesh.virtual > 1 else None,
        context_parallel_size=mesh.context,
        expert_model_parallel_size=mesh.expert,
        expert_tensor_parallel_size=mesh.expert_tensor,
        distributed_timeout_minutes=seconds / 60,
    )
    place = parallel_state.get_data_parallel_rank(with_context_parallel=True)
    place += dist.get_world_size() * parallel_state.get_pipeline_model_parallel_rank()
    own_seed = seed + SEED_STRIDE * place
    random.seed(own_seed)
    torch.manual_seed(own_seed)
    tensor_parallel.model_parallel_cuda_manual_seed(own_seed, force_reset_rng=True)


def data_rank() -> int:
    """Which of the data-parallel ranks this is: it chooses the sequences to read."""
    return int(parallel_state.get_data_parallel_rank())


def data_ranks() -> int:
    """How many data-parallel ranks there are."""
    return int(parallel_state.get_data_parallel_world_size())


def context_rank() -> int:
    """Which of the context-parallel ranks this is: it chooses the positions to read."""
    return int(parallel_state.get_context_parallel_rank())


def context_ranks() -> int:
    """Over how many ranks each sequence is cut."""
    return int(parallel_state.get_context_parallel_world_size())


def close() -> None:
    """Take the groups down and leave the job; does nothing when there are none."""
    if dist.is_initialized():
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()
    close_store()
