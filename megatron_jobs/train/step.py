"""One training step: forward, backward, the guard, clipping, the update.

Axis letters: B sequences of a micro batch, S positions on this rank.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.model.build import build_model
from megatron_jobs.model.output import token_losses
from megatron_jobs.optim.build import build_optimizer, clip_gradients, set_rates
from megatron_jobs.parallel.cures import finish_parameters
from megatron_jobs.parallel.device import engine_device
from megatron_jobs.parallel.gradients import attach, wrap
from megatron_jobs.parallel.own_time import OwnTime
from megatron_jobs.runtime.heartbeat import pulse
from megatron_jobs.train.batch import MicroBatch, own_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A model and its optimizer, ready to train on this rank."""

    model: ModelConfig
    mesh: Mesh
    optim: OptimConfig
    precision: Precision
    chunks: list[Any]
    """megatron-core DistributedDataParallel around GPTModel, one for each virtual stage."""
    optimizer: Any
    """megatron-core ChainedOptimizer of distributed optimizers."""
    own_time: OwnTime = field(default_factory=OwnTime)
    """What this rank worked in the last step or evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step did; the same on every rank."""

    loss: float
    """Mean over the counted targets of the whole batch, in nats."""
    grad_norm: float
    """Of all parameters together, before clipping."""
    tokens: int
    """Counted targets of the whole batch."""
    learning_rate: float
    skipped: bool
    """Whether the guard refused the step; nothing has moved then."""


class Loss(NamedTuple):
    """Sum and count over all data ranks; the same on every rank."""

    total: float
    """Nats."""
    tokens: int
    """Counted targets."""

    @property
    def mean(self) -> float:
        """Nats for each counted target; NaN when there is none."""
        return self.total / self.tokens if self.tokens else math.nan


def build_engine(
    model: ModelConfig, mesh: Mesh, optim: OptimConfig, *, precision: Precision, seed: int
) -> Engine:
    """A model with initial weights and its optimizer; groups must be open.

    Args:
        optim: with `decay_steps` set (`OptimConfig.over`).
        precision: number format of weights and activations.
        seed: of the initial weights, which do not depend on the mesh.
    """
    chunks = wrap(build_model(model, mesh, precision, seed=seed), mesh)
    optimizer = build_optimizer(optim, chunks, precision)
    stage = parallel_state.get_pipeline_model_parallel_rank()
    own_time = OwnTime(mesh.stage_layers(model.layers)[stage] * mesh.pipeline / model.layers)
    attach(chunks, optimizer, own_time)
    return Engine(
        model=model,
        mesh=mesh,
        optim=optim,
        precision=precision,
        chunks=chunks,
        optimizer=optimizer,
        own_time=own_time,
    )


def train_step(engine: Engine, batches: Iterable[MicroBatch], step: int) -> StepResult:
    """Move the parameters once, by the mean gradient over all counted targets.

    Args:
        engine: from `build_engine`.
        batches: this data rank's micro batches, all of one shape; as many on every rank.
        step: counted from 1; it decides the learning rate, and nothing else.
    Returns: the same on every rank. A loss or norm that is not finite, or a batch without counted
        targets, skips the step on all ranks.
    """
    for chunk in engine.chunks:
        chunk.train()
        chunk.zero_grad_buffer()
    engine.optimizer.zero_grad()
    loss = run_micro_batches(engine, batches, forward_only=False)
    pulse("optimizer")
    overflow = engine.optimizer.prepare_grads()
    norm = float(engine.optimizer.get_grad_norm())
    rate = set_rates(engine.optimizer, engine.optim, step)
    good = all_agree(not overflow and math.isfinite(norm) and math.isfinite(loss.mean))
    if good:
        clip_gradients(engine.optimizer, engine.optim, norm)
        engine.optimizer.step_with_ready_grads()
    return StepResult(
        loss=loss.mean, grad_norm=norm, tokens=loss.tokens, learning_rate=rate, skipped=not good
    )


@torch.no_grad()
def evaluate_loss(engine: Engine, batches: Iterable[MicroBatch]) -> Loss:
    """The loss of this data rank's micro batches and all others', without training on them.

    Losses of several calls add up: sum their totals and tokens.
    """
    finish_parameters(engine.chunks)
    for chunk in engine.chunks:
        chunk.eval()
    return run_micro_batches(engine, batches, forward_only=True)


def run_micro_batches(engine: Engine, batches: Iterable[MicroBatch], *, forward_only: bool) -> Loss:
    """Run megatron-core's schedule; gradients, if any, end up finished and divided by the count."""
    engine.own_time.clear()
    with engine.own_time.measured():
        parts = [own_part(batch) for batch in batches]
    pulse("" if forward_only else "forward and backward")
    assert parts, "a step needs at least one micro batch"
    assert len({part["tokens"].shape for part in parts}) == 1, "micro batches differ in shape"
    size, own_len = parts[0]["tokens"].shape
    iterators: list[Iterator[MicroBatch]] = [iter(parts) for _ in engine.chunks]
    single = len(iterators) == 1
    sums = get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=iterators[0] if single else iterators,
        model=engine.chunks[0] if single else engine.chunks,
        num_microbatches=len(parts),
        seq_length=own_len * engine.mesh.context,
        micro_batch_size=size,
        forward_only=forward_only,
    )
    return add_up(sums)


def forward(batches: Iterator[MicroBatch], chunk: Any) -> tuple[Tensor, Any]:
    """One micro batch through one chunk: its output, and what makes a loss of the last one's."""
    pulse()
    batch = next(batches)
    documents = batch.get("documents")  # in the place of a mask: `CausalAttention` reads them
    mask = batch["loss_mask"]
    targets = {"labels": batch["labels"], "loss_mask": mask, "output_processor": token_losses}
    output = chunk(batch["tokens"], batch["positions"], documents, **targets)
    return output, partial(masked_sum, mask)


def masked_sum(mask_BS: Tensor, losses_BS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(sum to differentiate, count, [sum, count] to report); the schedule changes the first."""
    total = (losses_BS.float() * mask_BS).sum()
    count = mask_BS.sum()
    report = torch.stack([total.detach().double(), count.double()])
    return total, count.int(), report


def add_up(sums: list[Tensor]) -> Loss:
    """Sums of this rank's micro batches, added over all ranks that hold other targets."""
    both = torch.zeros(2, dtype=torch.float64, device=engine_device())
    for pair in sums:  # empty except on the last pipeline stage
        both += pair
    dist.all_reduce(both, group=parallel_state.get_pipeline_model_parallel_group())
    dist.all_reduce(both, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
    total, tokens = both.tolist()
    return Loss(total=total, tokens=round(tokens))


def all_agree(good: bool) -> bool:
    """Whether every rank says so; ranks that judged for themselves would part ways for ever."""
    vote = torch.tensor(int(good), device=engine_device())
    dist.all_reduce(vote, op=dist.ReduceOp.MIN)
    return bool(vote)
