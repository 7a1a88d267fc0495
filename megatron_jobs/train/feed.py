"""From a sample index to this rank's micro batches: pure functions of the step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from megatron_jobs.config.batch import BatchConfig
from megatron_jobs.config.documents import DocumentResets
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.data.cursor import DocumentEnds, SampleCursor, read_batch
from megatron_jobs.data.sample_index import SampleIndex, SplitSamples
from megatron_jobs.data.splits import Split
from megatron_jobs.errors import UserError
from megatron_jobs.parallel.groups import data_rank, data_ranks
from megatron_jobs.train.batch import MicroBatch

WHOLE = Mesh()
"""Nothing is cut."""
UNSAID = DocumentResets()
"""As the form of the samples has it."""


@dataclass(frozen=True)
class Feed:
    """Where batches come from; both are functions of a number and of this rank's data place."""

    train: Callable[[int], Iterator[MicroBatch]]
    """Micro batches of a step, counted from 1."""
    validation: Callable[[int], Iterator[MicroBatch]]
    """Micro batches of the n-th global batch of the validation split, counted from 0."""
    validation_batches: int
    """How many of those there are, the last perhaps in part."""


def document_ends(
    index: SampleIndex, resets: DocumentResets = UNSAID, *, mask_eod: bool = False
) -> DocumentEnds:
    """What the ends of an index's documents change.

    Raises: UserError where concatenated samples do not show where a document ends.
    """
    positions, attention = resets.reset_position_ids, resets.reset_attention_mask
    ends = DocumentEnds(
        eod=index.eod,
        mask_eod=mask_eod,
        reset_positions=index.packed if positions is None else positions,
        reset_attention=index.packed if attention is None else attention,
    )
    wanted = {
        "mask_eod": ends.mask_eod,
        "reset_position_ids": ends.reset_positions and not index.packed,
        "reset_attention_mask": ends.reset_attention and not index.packed,
    }
    for setting, asked in wanted.items():
        if asked and index.eod is None:
            found = f"{setting}: {index.folder} knows no id that ends a document"
            raise UserError(f"{found}; tokenize with append_eod, or leave it false")
    return ends


def open_feed(
    index: SampleIndex,
    batch: BatchConfig,
    *,
    ends: DocumentEnds | None = None,
    index_step: int = 0,
) -> Feed:
    """The batches of an index for this rank; process groups must be open.

    Args:
        ends: what the ends of documents change; None for `document_ends(index)`. Targets that
            follow one always count in validation: losses stay comparable.
        index_step: the step behind which the index begins; its sample 0 is of the next one.
    """
    ends = document_ends(index) if ends is None else ends
    train = _reader(index.split("train"), batch, ends)
    valid = index.split("valid")
    return Feed(
        train=lambda step: train(step - 1 - index_step),
        validation=_reader(valid, batch, replace(ends, mask_eod=False)),
        validation_batches=-(-len(valid) // batch.global_size),
    )


def split_batches(
    index: SampleIndex, split: Split, batch: BatchConfig, *, ends: DocumentEnds | None = None
) -> Iterator[Iterator[MicroBatch]]:
    """All global batches of a split, each as this rank's micro batches; `ends` as in open_feed."""
    samples = index.split(split)
    read = _reader(samples, batch, document_ends(index) if ends is None else ends)
    for number in range(-(-len(samples) // batch.global_size)):
        yield read(number)


def _reader(
    samples: SplitSamples, batch: BatchConfig, ends: DocumentEnds
) -> Callable[[int], Iterator[MicroBatch]]:
    cursor = SampleCursor(batch.global_size, batch.micro_size, data_ranks(), len(samples))
    place = data_rank()

    def read(number: int) -> Iterator[MicroBatch]:
        for rows in cursor.samples(number, place):
            arrays = read_batch(samples, rows, ends=ends)
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
    check_samples(index, samples)
    return index


def check_samples(index: SampleIndex, samples: int, *, index_step: int = 0) -> None:
    """Raise UserError when an index does not last for so many train samples.

    Args:
        index_step: the step behind which it begins; the message tells of it.
    """
    held = index.samples("train")
    if held < samples:
        steps = f"(steps - {index_step})" if index_step else "steps"
        found = f"{steps} x batch.global_size = {samples} samples, the index holds {held}"
        raise UserError(f"index: {found}; build it with train_samples: {samples}")
