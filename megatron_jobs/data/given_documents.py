"""How often an index gave each document, and which documents of another token file those are.

A document is the same when its name, of PREFIX.names, and its number of tokens are.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.data.document_names import DocumentNames
from megatron_jobs.data.packing import PackedOrder
from megatron_jobs.data.source_order import SourceOrder
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import DataError

Counts = NDArray[np.int64]


def count_given(
    order: SourceOrder | PackedOrder,
    documents: range,
    *,
    samples: int,
    lead: int,
    sequences: int,
) -> Counts:
    """How often samples that are no more in `order.shuffle` held a token of each sequence.

    Args:
        order: what has not been given, with the documents of all that was.
        documents: those that a whole pass goes through.
        samples: how many have been given.
        lead: visits, or bins, of a first pass over some of them; 0 for none. Those that it left
            out had been given before: they count as given once.
    Returns: int64 [sequences of the token file].
    """
    if isinstance(order, PackedOrder):
        passes = (samples + len(order) - lead) // (len(order.first) - 1 - lead)
        counts = _given_in_bins(order, lead, passes, sequences)
    else:
        visits = order.documents[_given_visits(order)]
        counts = np.bincount(visits, minlength=sequences).astype(np.int64)
    if lead:
        first, whole = _passes(order, documents, lead)
        left_out = np.zeros(sequences, np.int64)
        left_out[whole] = 1
        left_out[first] = 0
        counts += left_out
    return counts


def _passes(
    order: SourceOrder | PackedOrder, documents: range, lead: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The documents of the first pass, and those of a whole one."""
    if isinstance(order, PackedOrder):
        end = int(order.first[lead])
        return order.documents[:end], order.documents[end:]
    return order.documents[:lead], np.arange(documents.start, documents.stop, dtype=np.int32)


def _given_visits(order: SourceOrder) -> NDArray[np.bool_]:
    """Which places of `order.documents` a sample was made of that is no more to come."""
    given = np.ones(len(order.starts) - 1, np.bool_)
    given[order.shuffle] = False
    first, last = order.starts[:-1, 0][given], order.starts[1:, 0][given]
    size = len(order.documents) + 1
    begun = np.bincount(first, minlength=size) - np.bincount(last + 1, minlength=size + 1)[:size]
    touched: NDArray[np.bool_] = np.cumsum(begun)[:-1] > 0
    return touched


def _given_in_bins(order: PackedOrder, lead: int, passes: int, sequences: int) -> Counts:
    """Of packed samples: a bin of the first pass comes once, each other one once in every pass."""
    bins = len(order.first) - 1
    to_come = np.bincount(order.shuffle, minlength=bins)
    counts = np.zeros(sequences, np.int64)
    for part, whole in ((slice(0, lead), 1), (slice(lead, bins), passes)):
        given = whole - to_come[part]
        pieces = slice(int(order.first[part.start]), int(order.first[part.stop]))
        sizes = np.diff(order.first)[part]
        most = np.zeros(sequences, np.int64)
        np.maximum.at(most, order.documents[pieces], np.repeat(given, sizes))
        counts += most
    return counts


def find_given(tokens: TokenFile, old: TokenFile, counts: Counts) -> Counts:
    """How often each sequence of `tokens` was given, by the names of documents of both files.

    Args:
        counts: [sequences of old], of `count_given`.
    Returns: int64 [sequences of tokens].
    Raises: DataError where a file has no names, or not one for each document.
    """
    known = np.repeat(np.arange(len(old.documents) - 1), np.diff(old.documents))
    most = np.zeros(len(old.documents) - 1, np.int64)
    np.maximum.at(most, known, counts)
    given = most > 0
    keys, places = np.unique(document_keys(old)[given], return_inverse=True)
    times = np.zeros(len(keys), np.int64)
    np.maximum.at(times, places, most[given])
    wanted = document_keys(tokens)
    found = np.zeros(len(wanted), np.int64)
    if len(keys):
        nearest = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = np.where(keys[nearest] == wanted, times[nearest], 0)
    return np.repeat(found, np.diff(tokens.documents))


def document_keys(tokens: TokenFile) -> NDArray[np.uint64]:
    """A number for each document, by its name and size: uint64 [documents]."""
    names = DocumentNames.open(tokens.prefix)
    documents = len(tokens.documents) - 1
    if len(names) != documents:
        found = f"{len(names)} names for {documents} documents"
        raise DataError(f"{names.path}: found {found}; tokenize again")
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(tokens.lengths, dtype=np.int64)])
    sizes = np.diff(ends[tokens.documents])
    return np.fromiter(_keys(names, sizes), np.uint64, documents)


def _keys(names: DocumentNames, sizes: NDArray[Any]) -> Iterator[int]:
    for name, size in zip(names, sizes.tolist(), strict=True):
        digest = blake2b(f"{size} {name}".encode(), digest_size=8).digest()
        yield int.from_bytes(digest, "little")
