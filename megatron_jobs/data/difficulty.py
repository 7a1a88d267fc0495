"""How hard each document is: by its length, by its rare tokens, or by somebody's score."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.config.curriculum import Curriculum
from megatron_jobs.data.record_scores import record_scores
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import DataError, UserError

LOOK_TOKENS = 1 << 22
"""Looked at together; 8 bytes each."""


def document_scores(
    tokens: TokenFile, documents: range, curriculum: Curriculum, scores: Path | None = None
) -> NDArray[np.float64]:
    """A number for each of some documents, higher for harder ones: float64 [documents].

    Args:
        documents: a range of the file's sequences.
        curriculum: its `by` says what the number is.
        scores: for `score`: a .npy with a number for each sequence of the whole file, or the
            records that the file was made of.
    Raises: UserError where `scores` is missing; DataError where it does not fit.
    """
    by = curriculum.by
    if by == "rarity":
        return _rarity(tokens, documents)
    if by == "length":
        return np.array(tokens.lengths[documents.start : documents.stop], np.float64)
    if scores is None:
        raise UserError(f"scores: {tokens.prefix} has none; curriculum.by: score needs them")
    if scores.suffix == ".npy":
        values = _read_scores(scores, len(tokens))
    else:
        values = record_scores(scores, curriculum.key, tokens.prefix)
    if len(values) != len(tokens):
        found = f"{len(values)} documents of {len(tokens)} sequences"
        raise DataError(f"{tokens.prefix}: found {found}; sentences have no score of their own")
    return values[documents.start : documents.stop]


def _read_scores(path: Path, documents: int) -> NDArray[np.float64]:
    """All numbers of a .npy."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not a .npy of numbers: {error}") from error
    if values.shape != (documents,) or values.dtype.kind not in "fiu":
        found = f"{values.dtype} {list(values.shape)}"
        raise DataError(
            f"{path}: found {found}, must be a number for each of {documents} documents"
        )
    scores: NDArray[np.float64] = values.astype(np.float64)
    if not np.isfinite(scores).all():
        place = int(np.argmin(np.isfinite(scores)))
        raise DataError(f"{path}: document {place}: found {scores[place]}, must be finite")
    return scores


def _rarity(tokens: TokenFile, documents: range) -> NDArray[np.float64]:
    """Mean of -log p of a document's tokens, p their share among all; 0 of an empty document.

    Source: Platanios et al. 2019, section 3.1, arXiv:1903.09848, whose sum (which grows with the
    length) is a mean here.
    """
    counts = np.zeros(0, np.int64)
    for _, _, ids in _pieces(tokens, documents):
        found = np.bincount(ids, minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    with np.errstate(divide="ignore"):
        surprise = np.log(counts.sum()) - np.log(counts)
    scores = np.zeros(len(documents))
    for place, lengths, ids in _pieces(tokens, documents):
        filled = np.flatnonzero(lengths)
        starts = (np.cumsum(lengths) - lengths)[filled]
        sums = np.add.reduceat(surprise[ids], starts) if len(starts) else np.zeros(0)
        scores[place + filled] = sums / lengths[filled]
    return scores


def _pieces(
    tokens: TokenFile, documents: range
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[Any]]]:
    """(place of the first document, lengths, their ids end to end), LOOK_TOKENS or a document."""
    lengths = np.array(tokens.lengths[documents.start : documents.stop], np.int64)
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        before = ends[first] - lengths[first]
        last = max(first + 1, int(np.searchsorted(ends, before + LOOK_TOKENS, "right")))
        numbers = range(documents.start + first, documents.start + last)
        yield first, lengths[first:last], _joined(tokens, numbers)
        first = last


def _joined(tokens: TokenFile, documents: range) -> NDArray[Any]:
    """The tokens of neighbouring documents, which mostly lie end to end in the file."""
    pointers = tokens.pointers[documents.start : documents.stop]
    lengths = tokens.lengths[documents.start : documents.stop].astype(np.int64)
    size = tokens.dtype.itemsize
    if np.array_equal(pointers[1:], (pointers + lengths * size)[:-1]):
        start = int(pointers[0]) // size
        return tokens.ids[start : start + int(lengths.sum())]
    return np.concatenate([tokens.read(document) for document in documents])
