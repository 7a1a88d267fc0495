"""A GGUF file read a second time, by llama.cpp's own package: does it find what we find in it?

R rows, C columns.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from megatron_jobs.convert.gguf_file import GGUFFile
from megatron_jobs.convert.gguf_in import open_gguf
from megatron_jobs.convert.gguf_kinds import PLAIN
from megatron_jobs.convert.matrix import PIECE, Matrix
from megatron_jobs.errors import DataError

Found = NDArray[np.float32]
OF_PARTS = "split."
"""Keys of a model in several files, that speak of one of them."""
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, OSError, NotImplementedError)
"""What the package raises of a file that it cannot read."""


class UnreadableError(DataError):
    """The package has no words for a file; our reader may."""


def reread(path: Path) -> int:
    """How many tensors the package reads as our reader does: names, shapes, every number.

    Args:
        path: a file, or one of the parts of a model.
    Raises: DataError naming the first thing that it reads otherwise; UnreadableError saying why it
        cannot read the file.
    """
    file = open_gguf(path).file
    left = dict(file.tensors)
    for place in (file.path, *file.further):
        try:
            reader = gguf.GGUFReader(place)
            _check_values(place, reader, file)
            for tensor in reader.tensors:
                _check_tensor(place, tensor, left.pop(tensor.name, None))
        except UNREADABLE as error:
            rule = f"{type(error).__name__}: {error}"
            raise UnreadableError(
                f"{place}: llama.cpp's package gguf cannot read it: {rule}"
            ) from error
    if left:
        raise DataError(f"{path}: {min(left)}: llama.cpp's package gguf does not find it")
    return len(file.tensors)


def _check_values(place: Path, reader: Any, file: GGUFFile) -> None:
    """Numbers and strings of the metadata, of the first file of a model."""
    if place != file.path:
        return
    for key, ours in _single(file.metadata):
        field = reader.fields.get(key)
        theirs = None if field is None else field.contents()
        same = (
            np.float32(theirs) == np.float32(ours) if _both_real(ours, theirs) else theirs == ours
        )
        if not same:
            found = f"we read {ours!r}, llama.cpp's package gguf {theirs!r}"
            raise DataError(f"{place}: metadata: {key}: {found}")


def _single(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in metadata.items():
        if isinstance(value, int | float | str) and not key.startswith(OF_PARTS):
            yield key, value


def _both_real(one: object, other: object) -> bool:
    return isinstance(one, float) and isinstance(other, float)


def _check_tensor(place: Path, tensor: Any, ours: Matrix | None) -> None:
    if ours is None:
        raise DataError(f"{place}: {tensor.name}: only llama.cpp's package gguf finds it")
    shape = tuple(int(size) for size in reversed(tensor.shape))
    if shape != ours.shape:
        found = f"we read {list(ours.shape)}, llama.cpp's package gguf {list(shape)}"
        raise DataError(f"{place}: {tensor.name}: {found}")
    for row, (one, other) in _pieces(tensor, ours):
        if not np.array_equal(one, other, equal_nan=True):
            found = "llama.cpp's package gguf reads other numbers than we do"
            raise DataError(f"{place}: {tensor.name}: {found}, from row {row} on")


def _pieces(tensor: Any, ours: Matrix) -> Iterator[tuple[int, tuple[Found, Found]]]:
    """(first row, what both read there), a few rows [R, C] at a time; a vector is one row."""
    columns = ours.shape[-1]
    stored = tensor.data.reshape(-1, tensor.data.shape[-1])
    step = max(1, PIECE // (4 * columns))
    for start in range(0, len(stored), step):
        stop = min(start + step, len(stored))
        found = _numbers(stored[start:stop], tensor.tensor_type)
        whole = (0, ours.rows) if len(ours.shape) == 1 else (start, stop)
        yield start, (_read(ours, *whole).reshape(stop - start, columns), found)


def _numbers(stored: NDArray[Any], kind: Any) -> Found:
    if kind.name in PLAIN and kind.name != "BF16":  # bf16 is bytes to the package
        return stored.astype(np.float32)
    found: Found = gguf.dequantize(stored, kind)
    return found


def _read(matrix: Matrix, start: int, stop: int) -> Found:
    made = np.empty((stop - start, matrix.columns), np.float32)
    at = 0
    for piece in matrix.read(start, stop):
        made[at : at + len(piece)] = piece
        at += len(piece)
    return made
