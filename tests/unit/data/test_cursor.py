"""Sample numbers against brute force, batches against the samples themselves."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from megatron_jobs.data.cursor import KEEP, NO_SAMPLE, DocumentEnds, SampleCursor, read_batch
from tests.megatron_datasets import megatron_datasets


def megatron_order(cursor: SampleCursor, step: int) -> Iterator[tuple[int, list[int]]]:
    """(data rank, micro batch), dealt out one run of micro_size after the other."""
    numbers = iter(range(step * cursor.global_size, (step + 1) * cursor.global_size))
    for _ in range(cursor.micro_batches):
        for data_rank in range(cursor.data_ranks):
            yield data_rank, [next(numbers) for _ in range(cursor.micro_size)]


@pytest.mark.parametrize("sizes", [(1, 1, 1), (12, 3, 2), (12, 1, 4), (30, 5, 3), (8, 8, 1)])
@pytest.mark.parametrize("step", [0, 1, 7])
def test_equals_dealing_out_one_by_one(sizes: tuple[int, int, int], step: int) -> None:
    cursor = SampleCursor(*sizes)
    wanted: dict[int, list[list[int]]] = {}
    for data_rank, micro_batch in megatron_order(cursor, step):
        wanted.setdefault(data_rank, []).append(micro_batch)
    got = {rank: cursor.samples(step, rank) for rank in range(cursor.data_ranks)}
    assert got == wanted


def test_every_layout_reads_the_same_batch() -> None:
    batches = []
    for micro_size, data_ranks in [(1, 1), (2, 3), (3, 4), (24, 1), (1, 24)]:
        cursor = SampleCursor(24, micro_size, data_ranks)
        ranks = [cursor.samples(5, rank) for rank in range(data_ranks)]
        batches.append(sorted(n for rank in ranks for micro in rank for n in micro))
    assert batches == [list(range(120, 144))] * 5


def test_numbers_beyond_the_total_are_no_samples() -> None:
    cursor = SampleCursor(4, 2, 2, total=5)
    assert [cursor.samples(1, rank) for rank in (0, 1)] == [[[4, NO_SAMPLE]], [[NO_SAMPLE] * 2]]


def test_impossible_sizes_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="7 samples in units of 4"):
        SampleCursor(7, 2, 2).samples(0, 0)
    with pytest.raises(AssertionError, match="data rank 2 of 2"):
        SampleCursor(8, 2, 2).samples(0, 2)


class Samples:
    """Three samples of 4 + 1 tokens; the last one ends early."""

    seq_len = 4
    packed = False
    rows: tuple[list[int], ...] = ([5, 6, 9, 7, 8], [9, 1, 9, 9, 2], [3, 4, -1, -1, -1])

    def __getitem__(self, number: int) -> np.ndarray[Any, Any]:
        return np.array(self.rows[number])


def read(numbers: list[int], ends: DocumentEnds = KEEP) -> dict[str, list[list[float]]]:
    batch = read_batch(Samples(), numbers, ends=ends)  # type: ignore[arg-type]
    assert [a.dtype.name for a in batch.values()] == ["int64", "int64", "float32", "int64"]
    return {name: array.tolist() for name, array in batch.items()}


def test_labels_are_the_tokens_one_later() -> None:
    batch = read([1, 0])
    assert batch["tokens"] == [[9, 1, 9, 9], [5, 6, 9, 7]]
    assert batch["labels"] == [[1, 9, 9, 2], [6, 9, 7, 8]]
    assert batch["loss_mask"] == [[1, 1, 1, 1]] * 2
    assert batch["positions"] == [[0, 1, 2, 3]] * 2


def test_padding_counts_for_nothing() -> None:
    batch = read([2, NO_SAMPLE])
    assert batch["tokens"] == [[3, 4, 0, 0], [0, 0, 0, 0]]
    assert batch["labels"] == [[4, 0, 0, 0], [0, 0, 0, 0]]
    assert batch["loss_mask"] == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_targets_after_an_end_of_document_can_be_left_out() -> None:
    masked = DocumentEnds(eod=9, mask_eod=True)
    assert read([1, 0], masked)["loss_mask"] == [[0, 1, 0, 0], [1, 1, 0, 1]]


APART = DocumentEnds(eod=9, reset_positions=True, reset_attention=True)


def test_an_end_of_document_belongs_to_what_it_ends() -> None:
    batch = read_batch(Samples(), [0, 1, 2, NO_SAMPLE], ends=APART)  # type: ignore[arg-type]
    assert batch["documents"].dtype == np.int32
    assert batch["documents"].tolist() == [[0, 0, 0, 1], [0, 1, 1, 2], [0, 0, -1, -1], [-1] * 4]
    wanted = [[0, 1, 2, 0], [0, 0, 1, 0], [0, 1, 0, 1], [0, 1, 2, 3]]
    assert batch["positions"].tolist() == wanted
    assert batch["loss_mask"].tolist()[:2] == [[1.0] * 4] * 2, "what follows one still counts"
    whole = read_batch(Samples(), [0, 1, 2, NO_SAMPLE])  # type: ignore[arg-type]
    for name in ("tokens", "labels", "loss_mask"):
        assert batch[name].tolist() == whole[name].tolist()


def test_ends_equal_megatrons() -> None:
    """Masks and positions of megatron-core's own function, on rows with many ends."""
    get = megatron_datasets().gpt_dataset._get_ltor_masks_and_position_ids
    row = np.random.default_rng(2).integers(0, 6, 65)
    samples = Samples()
    samples.seq_len, samples.rows = 64, (row.tolist(),)
    ends = DocumentEnds(eod=3, mask_eod=True, reset_positions=True, reset_attention=True)
    batch = read_batch(samples, [0], ends=ends)  # type: ignore[arg-type]
    mask, loss_mask, positions = get(torch.from_numpy(row[:-1]), 3, True, True, True, True)
    documents = batch["documents"][0]
    assert batch["positions"][0].tolist() == positions.tolist()
    assert batch["loss_mask"][0].tolist() == loss_mask.tolist()
    seen = np.tril(np.ones((64, 64), bool)) & (documents[:, None] == documents)
    assert np.array_equal(~mask[0].numpy(), seen)
