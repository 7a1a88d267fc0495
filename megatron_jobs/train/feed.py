"""From a sample index to this rank's micro batches: pure functions of the step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron_jobs.config.batch import BatchConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.data.cursor import SampleCursor, read_batch
from megatron_jobs.data.sample_index import SampleIndex, SplitSamples
from megatron_jobs.data.splits import Split
from megatron_jobs.errors import UserError
from megatron_jobs.parallel.groups import data_rank, data_ranks
from megatron_jobs.train.batch import MicroBatch

WHOLE = Mesh()
"""Nothing is cut."""


@dataclass(frozen=True)
class Feed:
    """Where batches come from; both are functions of a number and of this rank's data place."""

    train: Callable[[int], Iterator[MicroBatch]]
    """Micro batches of a step, counted from 1."""
    validation: Callable[[int], Iterator[MicroBatch]]
    """Micro batches of the n-th global batch of the validation split, counted from 0."""
    validation_batches: int
    """How many of those there are, the last perhaps in part."""


def open_feed(index: SampleIndex, batch: BatchConfig, *, mask_after: int | None = None) -> Feed:
    """The batches of an index for this rank; process groups must be open.

    Args:
        mask_after: the id that ends a document, to train on no target that follows one.
    """
    train = _reader(index.split("train"), batch, mask_after)
    valid = index.split("valid")
    return Feed(
        train=lambda step: train(step - 1),
        validation=_reader(valid, batch),
        validation_batches=-(-len(valid) // batch.global_size),
    )


def split_batches(
    index: SampleIndex, split: Split, batch: BatchConfig
) -> Iterator[Iterator[MicroBatch]]:
    """All global batches of a split, each as this rank's micro batches."""
    samples = index.split(split)
    read = _reader(samples, batch)
    for number in range(-(-len(samples) // batch.global_size)):
        yield read(number)


def _reader(
    samples: SplitSamples, batch: BatchConfig, mask_after: int | None = None
) -> Callable[[int], Iterator[MicroBatch]]:
    cursor = SampleCursor(batch.global_size, batch.micro_size, data_ranks(), len(samples))
    place = data_rank()

    def read(number: int) -> Iterator[MicroBatch]:
        for rows in cursor.samples(number, place):
            arrays = read_batch(samples, rows, mask_after=mask_after)
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            yield MicroBatch(**tensors)  # type: ignore[typeddict-item]

    return read


def check_index(path: Path, model: ModelConfig, *, samples: int, mesh: Mesh = WHOLE) -> SampleIndex:
    """Open an index and see that it fits the model and the mesh and lasts for `samples`.

    Raises: UserError naming the setting that does not fit; DataError when the index lies.
    """
    index = SampleIndex.open(path)
    if index.vocab_size > model.vocab_size:
        found = f"model.vocab_size: {model.vocab_size} is below the tokenizer's {index.vocab_size}"
        raise UserError(f"{found} tokens; give at least {index.vocab_size}")
    if index.seq_len > model.seq_len:
        found = f"model.seq_len: {model.seq_len} is below the index's seq_len {index.seq_len}"
        raise UserError(f"{found}; give at least {index.seq_len}")
    for setting, sentence in mesh.sequence_problems(index.seq_len):
        raise UserError(f"index: {setting}: {sentence}; build it with another")
    held = len(index.split("train"))
    if held < samples:
        found = f"steps x batch.global_size = {samples} samples, the index holds {held}"
        raise UserError(f"index: {found}; build it with train_samples: {samples}")
    return index
