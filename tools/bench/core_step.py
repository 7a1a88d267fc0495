"""A training step of megatron-core alone: its local layer spec, its distributed optimizer."""

from collections.abc import Callable
from dataclasses import replace

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.model.build import core_config
from megatron_jobs.optim.build import build_optimizer, set_rates
from megatron_jobs.parallel.device import engine_device
from megatron_jobs.parallel.gradients import wrap
from megatron_jobs.train.batch import MicroBatch


def core_step(model: ModelConfig, batch: MicroBatch) -> Callable[[], float]:
    """A function that trains once on the batch, and returns the loss."""
    config = replace(
        core_config(model, Mesh(), "bf16"),
        use_te_activation_func=False,
        perform_initialization=True,
    )
    rms = "RMSNorm" if model.norm == "rmsnorm" else None
    chunk = GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_layer_local_spec(normalization=rms),
        vocab_size=model.padded_vocab(),
        max_sequence_length=model.seq_len,
        share_embeddings_and_output_weights=model.tied,
        position_embedding_type="learned_absolute" if model.position == "learned" else "rope",
    )
    chunks = wrap([chunk.to(device=engine_device(), dtype=torch.bfloat16)], Mesh())
    settings = OptimConfig().over(1000)
    optimizer = build_optimizer(settings, chunks, "bf16")

    def step() -> float:
        chunks[0].zero_grad_buffer()
        optimizer.zero_grad()
        losses = chunks[0](batch["tokens"], batch["positions"], None, labels=batch["labels"])
        loss = losses.float().mean()
        loss.backward()
        chunks[0].finish_grad_sync()
        set_rates(optimizer, settings, 1)
        optimizer.step()
        return float(loss.detach())

    return step
