"""Tensors as torch keeps them: views of storages, of any strides, in either order of bytes.

R rows, C columns.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from megatron_jobs.convert.matrix import Array, Matrix, Stored, pieces

MOST_AXES = 64
"""Of a tensor."""
DTYPES: dict[str, np.dtype[np.generic]] = {
    "float64": np.dtype(np.float64), "double": np.dtype(np.float64),
    "float32": np.dtype(np.float32), "float": np.dtype(np.float32),
    "float16": np.dtype(np.float16), "half": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "float8_e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "float8_e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
    "int64": np.dtype(np.int64), "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16), "int8": np.dtype(np.int8),
    "uint64": np.dtype(np.uint64), "uint32": np.dtype(np.uint32),
    "uint16": np.dtype(np.uint16), "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64), "complex128": np.dtype(np.complex128),
}  # fmt: skip
"""Number formats of torch by their names there."""
STORAGES: dict[str, np.dtype[np.generic] | None] = {
    "FloatStorage": DTYPES["float32"], "DoubleStorage": DTYPES["float64"],
    "HalfStorage": DTYPES["float16"], "BFloat16Storage": DTYPES["bfloat16"],
    "LongStorage": DTYPES["int64"], "IntStorage": DTYPES["int32"],
    "ShortStorage": DTYPES["int16"], "CharStorage": DTYPES["int8"],
    "ByteStorage": DTYPES["uint8"], "BoolStorage": DTYPES["bool"],
    "ComplexFloatStorage": DTYPES["complex64"], "ComplexDoubleStorage": DTYPES["complex128"],
    "UntypedStorage": None,
}  # fmt: skip
"""None: bytes."""


@dataclass(frozen=True)
class Storage:
    """The bytes that tensors are views of."""

    dtype: np.dtype[np.generic] | None
    data: Array | None
    """uint8 [bytes]; None: not known yet, and neither are its tensors."""
    swapped: bool = False
    """Whether the bytes of a number stand in the other order than here."""


def size_of(numbers: Any = ()) -> tuple[int, ...]:
    """A tuple of counts; ValueError when it is none."""
    if not isinstance(numbers, tuple | list) or len(numbers) > MOST_AXES:
        raise ValueError("a torch.Size that is none")
    if not all(type(number) is int for number in numbers):
        raise ValueError("a torch.Size of something that are no counts")
    return tuple(numbers)


def view_of(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: np.dtype[np.generic] | None
) -> Matrix | None:
    """A tensor; ValueError unless all of it lies within its storage."""
    if not isinstance(storage, Storage):
        raise ValueError("a tensor that has no storage")
    dtype = dtype or storage.dtype
    if dtype is None:
        raise ValueError("a tensor of an unknown number format")
    size, stride = size_of(size), size_of(stride)
    if type(offset) is not int or len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise ValueError(f"a tensor of sizes {size}, strides {stride} at {offset}")
    if storage.data is None:
        return None
    count = len(storage.data) // dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    numbers = math.prod(size)
    if numbers and (last >= count or numbers > count):
        raise ValueError(f"a tensor of sizes {size}, strides {stride} at {offset} reaches past "
                         f"its storage of {count} numbers")  # fmt: skip
    steps = tuple(step * dtype.itemsize for step in stride)
    array: Array = np.empty(size, dtype)
    if numbers:  # not as_strided: it knows no float8_e5m2
        array = np.ndarray(size, dtype, storage.data, offset * dtype.itemsize, steps)
    matrix = _matrix(array)
    return Swapped(matrix) if storage.swapped and dtype.itemsize > 1 else matrix


def _matrix(array: Array) -> Matrix:
    """A tensor of any strides, without a copy of it."""
    strided = Strided(array)
    try:
        array.reshape(strided.rows, strided.columns, copy=False)
    except ValueError:
        return strided
    return Stored(array)


class Strided(Matrix):
    """An array of more than two dimensions whose rows do not lie evenly: a permuted view."""

    def __init__(self, array: Array) -> None:
        self.array_view, self.shape, self.dtype = array, array.shape, array.dtype

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are gathered."""
        outer = self.shape[:-1]
        for first, last in pieces(self, start, stop):
            places = np.unravel_index(np.arange(first, last), outer)
            yield self.array_view[places]


class Swapped(Matrix):
    """Numbers whose bytes stand in the other order than this machine's."""

    def __init__(self, base: Matrix) -> None:
        self.base, self.shape, self.dtype = base, base.shape, base.dtype
        halves = 2 if base.dtype.kind == "c" else 1
        self.unit = np.dtype(f"u{base.dtype.itemsize // halves}")

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are turned round."""
        for piece in self.base.read(start, stop):
            for first, last in pieces(self, 0, len(piece)):
                part = np.ascontiguousarray(piece[first:last])
                assert math.prod(part.shape) == part.size
                yield part.view(self.unit).byteswap().view(self.dtype)


def part_of(matrix: Matrix, index: tuple[int, ...]) -> Matrix:
    """`matrix[index]`, a view; it has fewer axes."""
    if not index:
        return matrix
    if isinstance(matrix, Swapped):
        return Swapped(part_of(matrix.base, index))
    if isinstance(matrix, Strided):
        return _matrix(matrix.array_view[index])
    assert isinstance(matrix, Stored), f"a part of a {type(matrix).__name__}"
    return Stored(matrix.view.reshape(matrix.shape)[index])
