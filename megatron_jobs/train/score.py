"""The loss of a checkpoint on a whole split."""

from pathlib import Path

from megatron_jobs.checkpoint.model import model_of, open_model
from megatron_jobs.config.batch import BatchConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.data.cursor import DocumentEnds
from megatron_jobs.data.sample_index import SampleIndex
from megatron_jobs.data.splits import Split
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.heartbeat import beat, rest
from megatron_jobs.train.feed import split_batches
from megatron_jobs.train.step import Engine, Loss, evaluate_loss


def split_loss(
    checkpoint: Path,
    index: SampleIndex,
    split: Split,
    *,
    mesh: Mesh,
    batch: BatchConfig,
    precision: Precision,
    ends: DocumentEnds | None = None,
) -> Loss:
    """Sum and count over every target of a split; the same on every rank. Groups must be open.

    Args:
        ends: what the ends of documents change; None for `document_ends(index)`.
    Raises: UserError when the index holds no sample of that split.
    """
    engine = Engine(
        model=model_of(checkpoint),
        mesh=mesh,
        optim=OptimConfig(),
        precision=precision,
        chunks=open_model(checkpoint, mesh, precision),
        optimizer=None,
    )
    losses: list[Loss] = []
    for number, batches in enumerate(split_batches(index, split, batch, ends=ends), start=1):
        beat(number, "evaluate")
        losses.append(evaluate_loss(engine, batches))
    rest("end")
    if not losses:
        raise UserError(f"split: the index holds no {split} samples; build it with some")
    return Loss(total=sum(x.total for x in losses), tokens=sum(x.tokens for x in losses))
