"""Documents read again from the input, by their numbers in the fingerprints."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.errors import DataError
from megatron_jobs.text.copies.arrays import I64
from megatron_jobs.text.copies.letters import make_shingles
from megatron_jobs.text.copies.store import Fingerprints
from megatron_jobs.text.readers import read_unit
from megatron_jobs.text.record import Record

LETTERS_AT_ONCE = 1 << 28
"""Of the texts that are held in memory to be compared."""


def documents_of(prints: Fingerprints, unit: int) -> Iterator[tuple[int, Record]]:
    """(number, document) of a unit; DataError when the input is not what it was."""
    number = first = int(prints.bases[unit])
    for item in read_unit(prints.units[unit].unit, prints.rules):
        if isinstance(item, Record):
            yield number, item
            number += 1
    if number != first + prints.units[unit].documents:
        found = f"{number - first} documents in unit {unit}"
        rule = f"fingerprints were taken of {prints.units[unit].documents}"
        raise DataError(f"{prints.units[unit].pieces[0]['name']}: found {found}, {rule}")


def read_texts(prints: Fingerprints, numbers: I64) -> dict[int, Record]:
    """The documents of some numbers; a unit that holds one is read through."""
    wanted = set(numbers.tolist())
    found: dict[int, Record] = {}
    for unit in np.unique(prints.unit_of(np.unique(numbers))).tolist():
        found |= {n: record for n, record in documents_of(prints, unit) if n in wanted}
    return found


def exact_similarities(prints: Fingerprints, pairs: I64) -> NDArray[np.float64]:
    """Jaccard similarity of the shingles of documents [pairs, 2]; float64 [pairs].

    The input is read once for each LETTERS_AT_ONCE of the texts that are in pairs.
    """
    shingles = make_shingles(prints.settings)
    found = np.zeros(len(pairs))
    for some in _batches(prints, pairs):
        texts = {number: r.text for number, r in read_texts(prints, pairs[some].ravel()).items()}
        for place in some.tolist():
            high, low = pairs[place].tolist()
            found[place] = shingles.jaccard(texts[high], texts[low])
    return found


def _batches(prints: Fingerprints, pairs: I64) -> Iterator[I64]:
    """Places of pairs whose texts fit into memory together, by the mean size of a document."""
    documents = sum(unit.documents for unit in prints.units)
    mean = sum(unit.text_bytes for unit in prints.units) / max(documents, 1)
    step = max(1, int(LETTERS_AT_ONCE / max(mean, 1) / 2))
    for first in range(0, len(pairs), step):
        yield np.arange(first, min(first + step, len(pairs)))
