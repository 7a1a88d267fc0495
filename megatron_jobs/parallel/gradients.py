"""Gradients summed over data-parallel ranks, and the schedule of micro batches that makes them."""

from typing import Any

from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.parallel.alone import install_alone
from megatron_jobs.parallel.cures import unwrap
from megatron_jobs.parallel.own_time import OwnTime
from megatron_jobs.parallel.sums import Sums


def wrap(chunks: list[Any], mesh: Mesh) -> list[DistributedDataParallel]:
    """Each chunk with buffers of fp32 gradients, cut over the data ranks; weights made equal."""
    install_alone()
    settings = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=True,  # always: its checkpoints and a plain one's do not mix
        overlap_grad_reduce=mesh.overlap,
        overlap_param_gather=mesh.overlap,
    )
    wrapped = [
        Sums(chunk.config, settings, chunk, disable_bucketing=number > 0)
        for number, chunk in enumerate(chunks)
    ]
    for chunk in wrapped:
        chunk.broadcast_params()
    return wrapped


def attach(chunks: list[DistributedDataParallel], optimizer: Any, own_time: OwnTime) -> None:
    """Tell the schedule how to scale the loss, sum and finish gradients, and keep time."""
    config = unwrap(chunks[0]).config
    config.timers = own_time
    config.grad_scale_func = optimizer.scale_loss
    config.finalize_model_grads_func = finalize_model_grads
    if chunks[0].ddp_config.overlap_grad_reduce:
        several = len(chunks) > 1
        config.no_sync_func = [c.no_sync for c in chunks] if several else chunks[0].no_sync
        config.grad_sync_func = [c.start_grad_sync for c in chunks] if several else None
