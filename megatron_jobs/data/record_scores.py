"""A number for each document of a token file, from the records that it was made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from megatron_jobs.data.document_names import DocumentNames
from megatron_jobs.errors import DataError
from megatron_jobs.text.lines import Line, read_lines
from megatron_jobs.text.sources import Piece, text_files

LONGEST = 1 << 30
"""Bytes of a line; longer ones are passed over, as documents they are rejected."""


def record_scores(records: Path, key: str, prefix: Path) -> NDArray[np.float64]:
    """The numbers of all documents of a token file, in their order: float64 [documents].

    Both are read side by side, by PREFIX.names: records that became no document are passed over.

    Args:
        records: JSONL, a file or a folder, as the token file was made of it.
        key: of the number in a record; `metadata.perplexity` is one in an object in it.
        prefix: of the token file.
    Raises: DataError where a document has no record in this order, or a record no number, or where
        one that was passed over has the name of a document.
    """
    names = DocumentNames.open(prefix)
    scores = np.empty(len(names))
    passed: set[str] = set()
    wanted = enumerate(names)
    place, name = next(wanted, (len(names), ""))
    for found, where, record in _records(records):
        if place < len(names) and found == name:
            scores[place] = _number(record, key, where)
            place, name = next(wanted, (len(names), ""))
        else:
            passed.add(found)
    if place < len(names):
        what = f"document {place}, {name!r}, is not found"
        raise DataError(f"{records}: {what}; give the records that {prefix} was made of, in order")
    _check_passed(records, names, passed)
    return scores


def _check_passed(records: Path, names: DocumentNames, passed: set[str]) -> None:
    """Of two records of one name, of which one became a document, nobody can tell which it was."""
    twice = next((name for name in names if name in passed), None) if passed else None
    if twice is not None:
        found = f"{twice!r} names more records than documents, so which became one is not known"
        raise DataError(f"{records}: {found}; give records with ids of their own, or a .npy")


def _records(path: Path) -> Iterator[tuple[str, str, Any]]:
    """(name, FILE:LINE, record) of each line that is JSON."""
    for file in text_files([path]):
        for line in read_lines(Piece(file, 0, file.size), LONGEST):
            if not isinstance(line, Line) or line.too_long:
                continue
            where = f"{file.name}:{line.number}"
            try:
                record = orjson.loads(line.head)
            except ValueError:
                continue
            given = record.get("id") if isinstance(record, dict) else None
            yield (
                str(given) if isinstance(given, str | int) and given != "" else where,
                where,
                record,
            )


def _number(record: Any, key: str, where: str) -> float:
    value = record
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not np.isfinite(value):
        raise DataError(f"{where}: {key}: found {value!r}, must be a number")
    return float(value)
