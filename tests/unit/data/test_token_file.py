"""Token files against megatron-core's IndexedDatasetBuilder and IndexedDataset."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_jobs.data.token_file import (
    TokenFile,
    bin_path,
    idx_path,
    merge_token_files,
    token_dtype,
    write_token_file,
)
from megatron_jobs.errors import DataError
from tests.megatron_datasets import megatron_datasets

Documents = list[list[list[int]]]
"""Token ids of each sequence of each document."""


def some_documents(vocab_size: int, seed: int = 0) -> Documents:
    """Documents of 0 to 3 sequences of odd lengths, 0 and 1 among them."""
    random = np.random.default_rng(seed)
    return [
        [random.integers(0, vocab_size, random.choice([0, 1, 2, 61])).tolist() for _ in range(n)]
        for n in [1, 3, 0, 1, 1, 2]
    ]


def write(prefix: Path, documents: Documents, vocab_size: int) -> None:
    with write_token_file(prefix, vocab_size=vocab_size) as writer:
        for document in documents:
            ids = [token for sequence in document for token in sequence]
            writer.add_document(ids, [len(sequence) for sequence in document])


def write_by_megatron(prefix: Path, documents: Documents, dtype: Any) -> None:
    import torch

    builder = megatron_datasets().indexed_dataset.IndexedDatasetBuilder(f"{prefix}.bin", dtype)
    for document in documents:
        for sequence in document:
            builder.add_item(torch.tensor(sequence, dtype=torch.int64))
        builder.end_document()
    builder.finalize(f"{prefix}.idx")


def both_bytes(prefix: Path) -> tuple[bytes, bytes]:
    return bin_path(prefix).read_bytes(), idx_path(prefix).read_bytes()


@pytest.mark.parametrize("vocab_size", [65499, 65500, 200_000])
def test_equals_megatron_to_the_byte(tmp_path: Path, vocab_size: int) -> None:
    documents = some_documents(vocab_size)
    write(tmp_path / "ours", documents, vocab_size)
    dtype = megatron_datasets().indexed_dataset.DType.optimal_dtype(vocab_size)
    write_by_megatron(tmp_path / "theirs", documents, dtype)
    assert both_bytes(tmp_path / "ours") == both_bytes(tmp_path / "theirs")
    assert token_dtype(vocab_size) == np.dtype(dtype)


def test_documents_of_one_sequence_in_bulk(tmp_path: Path) -> None:
    documents = [[[5, 6, 7]], [[]], [[8]]]
    write(tmp_path / "one", documents, 9)
    with write_token_file(tmp_path / "bulk", vocab_size=9) as writer:
        writer.add([5, 6, 7], [3, 0])
        writer.add(np.array([8], np.int64), [1])
        writer.add([], [])
    assert both_bytes(tmp_path / "bulk") == both_bytes(tmp_path / "one")


def test_megatron_reads_what_was_written(tmp_path: Path) -> None:
    documents = some_documents(200_000)
    write(tmp_path / "tokens", documents, 200_000)
    theirs = megatron_datasets().indexed_dataset.IndexedDataset(str(tmp_path / "tokens"))
    sequences = [sequence for document in documents for sequence in document]
    assert [theirs[i].tolist() for i in range(len(theirs))] == sequences
    assert theirs.document_indices.tolist() == [0, 1, 4, 4, 5, 6, 8]


def test_what_megatron_wrote_is_read(tmp_path: Path) -> None:
    documents = some_documents(200_000)
    write_by_megatron(tmp_path / "tokens", documents, np.int32)
    ours = TokenFile.open(tmp_path / "tokens")
    ours.check()
    sequences = [sequence for document in documents for sequence in document]
    assert [ours.read(i).tolist() for i in range(len(ours))] == sequences
    assert ours.documents.tolist() == [0, 1, 4, 4, 5, 6, 8]
    assert ours.tokens == sum(map(len, sequences))
    longest = max(range(len(sequences)), key=lambda i: len(sequences[i]))
    assert ours.read(longest, 3, 7).tolist() == sequences[longest][3:10]


def test_an_empty_token_file(tmp_path: Path) -> None:
    write(tmp_path / "none", [], 9)
    write_by_megatron(tmp_path / "theirs", [], np.uint16)
    assert both_bytes(tmp_path / "none") == both_bytes(tmp_path / "theirs")
    assert len(TokenFile.open(tmp_path / "none")) == 0


@pytest.mark.parametrize("cuts", [[0, 6], [0, 1, 6], [0, 2, 2, 3, 6]])
def test_merged_parts_equal_one_writer(tmp_path: Path, cuts: list[int]) -> None:
    documents = some_documents(70_000)
    write(tmp_path / "whole", documents, 70_000)
    parts = [tmp_path / f"part-{i}" for i in range(len(cuts) - 1)]
    for part, first, last in zip(parts, cuts, cuts[1:], strict=False):
        write(part, documents[first:last], 70_000)
    merge_token_files(parts, tmp_path / "merged")
    assert both_bytes(tmp_path / "merged") == both_bytes(tmp_path / "whole")


def test_parts_of_two_dtypes_are_not_merged(tmp_path: Path) -> None:
    write(tmp_path / "a", [[[1]]], 9)
    write(tmp_path / "b", [[[1]]], 70_000)
    with pytest.raises(DataError, match="b: dtype: found int32, must be uint16"):
        merge_token_files([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert not bin_path(tmp_path / "merged").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "tokens", [[[1, 2]]], 9)
    before = both_bytes(tmp_path / "tokens")
    with (
        pytest.raises(DataError, match=r"token ids from -1 to 9, must be below 9"),
        write_token_file(tmp_path / "tokens", vocab_size=9) as writer,
    ):
        writer.add([9, -1], [2])
    assert both_bytes(tmp_path / "tokens") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens.bin", "tokens.idx"]


def test_lengths_must_add_up(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match=r"1-D of 3 tokens \(sum of lengths\), got \(2,\)"),
        write_token_file(tmp_path / "tokens", vocab_size=9) as writer,
    ):
        writer.add([1, 2], [3])


# in the .idx of three sequences of 2, 3 and 1 int32 tokens: lengths at 34, pointers at 46,
# documents at 70
DAMAGE = {
    r"\.idx: magic: found b'XMIDIDX": (0, b"X"),
    r"\.idx: version: found 2, only 1 can be read": (9, b"\x02"),
    r"\.idx: dtype code: found 9, known are 1-8": (17, b"\x09"),
    r"\.idx: size: 102 bytes, 259 sequences and 4 document entries need 3174": (19, b"\x01"),
    r"\.idx: documents\[0\]: found 1, must be 0": (70, b"\x01"),
    r"\.idx: documents\[-1\]: found 2, must be 3 sequences": (94, b"\x02"),
    r"\.idx: pointers\[-1\]: the last sequence ends at byte 44, .*\.bin has 24": (62, b"\x28"),
    r"\.idx: lengths\[1\]: found -3, must not be negative": (38, struct.pack("<i", -3)),
    r"\.idx: pointers\[1\]: found 520, must lie in the 24 bytes": (55, b"\x02"),
    r"\.idx: pointers\[1\]: found 9, must be at a whole int32": (54, b"\x09"),
    r"\.idx: documents\[2\]: found 1, must not fall": (78, b"\x02"),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damage_is_named_by_file_and_field(tmp_path: Path, message: str) -> None:
    prefix = tmp_path / "tokens"
    write(prefix, [[[1, 2]], [[3, 4, 5]], [[6]]], 70_000)
    place, new = DAMAGE[message]
    idx = bytearray(idx_path(prefix).read_bytes())
    idx[place : place + len(new)] = new
    if "found 1, must not fall" in message:
        idx[86] = 1  # 0, 2, 1, 3
    idx_path(prefix).write_bytes(idx)
    with pytest.raises(DataError, match=message):
        TokenFile.open(prefix).check()


def test_files_cut_short_are_named(tmp_path: Path) -> None:
    prefix = tmp_path / "tokens"
    write(prefix, [[[1, 2]], [[3, 4, 5]]], 70_000)
    binary, idx = both_bytes(prefix)
    idx_path(prefix).write_bytes(idx[:20])
    with pytest.raises(DataError, match=r"\.idx: header: 20 bytes, it takes 34; cut short\?"):
        TokenFile.open(prefix)
    idx_path(prefix).write_bytes(idx[:-8])
    with pytest.raises(DataError, match=r"\.idx: size: 74 bytes, 2 sequences and 3 document"):
        TokenFile.open(prefix)
    idx_path(prefix).write_bytes(idx)
    bin_path(prefix).write_bytes(binary[:-2])
    with pytest.raises(DataError, match=r"\.bin: size: 18 bytes are no whole number of int32"):
        TokenFile.open(prefix)
    bin_path(prefix).write_bytes(binary + bytes(4))
    with pytest.raises(DataError, match=r"6 tokens, its \.idx tells of 5; only whole files"):
        merge_token_files([prefix], tmp_path / "merged")
    bin_path(prefix).unlink()
    with pytest.raises(DataError, match=r"tokens\.bin: no such file; a token file is a .bin and"):
        TokenFile.open(prefix)


def test_reading_outside_a_sequence_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "tokens", [[[1, 2]], [[3, 4, 5]]], 9)
    with pytest.raises(DataError, match="sequence 0 of 2 tokens at 0: 3 from 0 on lie outside"):
        TokenFile.open(tmp_path / "tokens").read(0, 0, 3)
