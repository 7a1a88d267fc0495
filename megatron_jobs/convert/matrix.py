"""Tensors that are read by rows, wherever their bytes lie and whatever lies between.

R rows, C columns. A tensor of more dimensions has the rows of all but its last one; one of a single
dimension has a column, one of none a single number.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from megatron_jobs.config.precision import Precision
from megatron_jobs.errors import DataError

Array = NDArray[np.generic]
PIECE = 1 << 20
"""Bytes that are made at once, where a view does not do. Each level of nesting, in each thread, may
hold as many."""
DTYPES: dict[Precision, np.dtype[np.generic]] = {
    "fp32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp16": np.dtype(np.float16),
}
"""Our names of number formats."""
FP16, FP16_INFINITE = DTYPES["fp16"], 0x7C00


class Matrix(ABC):
    """A tensor that is read by rows; nothing is read before `read` is asked."""

    __slots__ = ("dtype", "shape")
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def rows(self) -> int:
        """R."""
        return math.prod(self.shape[:-1]) if len(self.shape) > 1 else math.prod(self.shape)

    @property
    def columns(self) -> int:
        """C."""
        return self.shape[-1] if len(self.shape) > 1 else 1

    @property
    def bytes(self) -> int:
        """Of all its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    @abstractmethod
    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Rows start..stop from the first to the last, as arrays [n, C].

        An array is a view of a file where it can be; one that is made holds PIECE bytes or fewer
        (but always a row), and may be overwritten when the next is asked for.
        """

    def array(self) -> Array:
        """The whole tensor, a copy; for what is small."""
        made = np.empty((self.rows, self.columns), self.dtype)
        at = 0
        for piece in self.read(0, self.rows):
            made[at : at + len(piece)] = piece
            at += len(piece)
        return made.reshape(self.shape)

    def piece_rows(self) -> int:
        """How many rows are made at once."""
        return max(1, PIECE // max(1, self.columns * self.dtype.itemsize))


def pieces(matrix: Matrix, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Rows start..stop in stretches that may be made at once."""
    step = matrix.piece_rows()
    for first in range(start, stop, step):
        yield first, min(first + step, stop)


class Stored(Matrix):
    """An array that lies somewhere, such as a mapped file. It may have any strides."""

    __slots__ = ("view",)

    def __init__(self, array: Array) -> None:
        self.shape = array.shape
        self.dtype = array.dtype
        flat = array.ndim != 2
        self.view: Array = array.reshape(self.rows, self.columns) if flat else array

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """One view of all."""
        if stop > start:
            yield self.view[start:stop]


class Rows(Matrix):
    """Rows start..stop of another, under a shape of its own."""

    __slots__ = ("base", "start")

    def __init__(self, base: Matrix, start: int, shape: tuple[int, ...]) -> None:
        self.base, self.start, self.shape, self.dtype = base, start, shape, base.dtype
        assert start + self.rows <= base.rows, f"{start} + {self.rows} of {base.rows} rows"
        assert self.columns == base.columns, f"{shape} of {base.shape}"

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """As the base gives them."""
        yield from self.base.read(self.start + start, self.start + stop)


class Columns(Matrix):
    """Columns start..stop of a matrix of two dimensions."""

    __slots__ = ("base", "start", "stop")

    def __init__(self, base: Matrix, start: int, stop: int) -> None:
        self.base, self.start, self.stop, self.dtype = base, start, stop, base.dtype
        self.shape = (base.rows, stop - start)

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Views of what the base gives."""
        for piece in self.base.read(start, stop):
            yield piece[:, self.start : self.stop]


class Turned(Matrix):
    """A matrix of two dimensions with rows and columns exchanged."""

    __slots__ = ("base",)

    def __init__(self, base: Matrix) -> None:
        self.base, self.dtype = base, base.dtype
        self.shape = (base.columns, base.rows)

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Views where the base lies in one array; else the base is read once for each piece."""
        if isinstance(self.base, Stored):
            yield self.base.view.T[start:stop]
            return
        for first, last in pieces(self, start, stop):
            made = np.empty((last - first, self.columns), self.dtype)
            at = 0
            for piece in self.base.read(0, self.base.rows):
                made[:, at : at + len(piece)] = piece[:, first:last].T
                at += len(piece)
            yield made


class Ordered(Matrix):
    """Matrices one below the other, and a choice of their rows in any order.

    Args:
        order: int64 [R], the row of all parts together that each row is; None: as they stand. It
            is kept, not copied: tensors of a kind share one.
    """

    __slots__ = ("ends", "order", "parts")

    def __init__(
        self, parts: Sequence[Matrix], order: NDArray[np.int64] | None, shape: tuple[int, ...]
    ) -> None:
        self.parts, self.shape, self.dtype = tuple(parts), shape, parts[0].dtype
        self.ends = tuple(itertools.accumulate(part.rows for part in parts))
        assert all(p.dtype == self.dtype and p.columns == self.columns for p in parts), shape
        count = self.ends[-1] if order is None else len(order)
        assert count == self.rows, f"{count} rows for {shape}"
        if order is not None and self.rows:
            assert 0 <= order.min() <= order.max() < self.ends[-1], shape
        self.order = order

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Views of runs of rows; where runs are short, pieces that are put together."""
        if self.order is None:
            for matrix, at, end in self._stretches(start, stop):
                yield from matrix.read(at, end)
            return
        for first, last in pieces(self, start, stop):
            order = self.order[first:last]
            runs = list(self._runs(order))
            if len(runs) * 8 <= last - first or len(runs) == 1:
                for part, at, count in runs:
                    yield from self.parts[part].read(at, at + count)
            else:
                yield self._gathered(order, runs)

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[Matrix, int, int]]:
        """(part, its first row, its last) of rows that lie as the parts do."""
        for part, end in zip(self.parts, self.ends, strict=True):
            begin = end - part.rows
            if start < end and begin < stop:
                yield part, max(start, begin) - begin, min(stop, end) - begin

    def _runs(self, order: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
        """(part, its first row, rows) of neighbouring rows that are neighbours in a part too."""
        part = np.searchsorted(self.ends, order, side="right")
        breaks = np.flatnonzero((np.diff(order) != 1) | (np.diff(part) != 0)) + 1
        firsts = np.concatenate([[0], breaks])
        counts = np.diff(np.concatenate([firsts, [len(order)]]))
        begins = [end - part.rows for part, end in zip(self.parts, self.ends, strict=True)]
        for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
            number = int(part[first])
            yield number, int(order[first] - begins[number]), count

    def _gathered(self, order: NDArray[np.int64], runs: list[tuple[int, int, int]]) -> Array:
        made = np.empty((len(order), self.columns), self.dtype)
        if len(self.parts) == 1 and isinstance(self.parts[0], Stored):
            np.take(self.parts[0].view, order, axis=0, out=made, mode="clip")
            return made
        at = 0
        for part, begin, count in runs:
            for piece in self.parts[part].read(begin, begin + count):
                made[at : at + len(piece)] = piece
                at += len(piece)
        return made


class Converted(Matrix):
    """The same numbers in another format, rounded to nearest even.

    Args:
        name: of the tensor, for errors.
    Raises: DataError, when it is read, for a number that fp16 cannot hold.
    """

    __slots__ = ("base", "name")

    def __init__(self, base: Matrix, dtype: np.dtype[np.generic], name: str = "a tensor") -> None:
        self.base, self.shape, self.dtype, self.name = base, base.shape, dtype, name

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are made, or the base's own where the format is the same."""
        for piece in self.base.read(start, stop):
            if piece.dtype == self.dtype:
                yield piece
                continue
            for first, last in pieces(self, 0, len(piece)):
                yield self._rounded(piece[first:last])

    def _rounded(self, values: Array) -> Array:
        if self.dtype != FP16:
            return values.astype(self.dtype)
        with np.errstate(over="ignore"):
            made = values.astype(FP16)
        if int((made.view(np.uint16) & 0x7FFF).max(initial=0)) >= FP16_INFINITE:
            self._check_held(values.astype(np.float64), made)
        return made

    def _check_held(self, values: NDArray[np.float64], made: Array) -> None:
        """What is infinite, or no number, in both formats was so before."""
        lost = np.isfinite(values) & ~np.isfinite(made.astype(np.float32))
        if lost.any():
            found = values[lost][np.abs(values[lost]).argmax()]
            raise DataError(f"{self.name}: found {found:g}; fp16 ends at 65504; use bf16 or fp32")


class Padded(Matrix):
    """A matrix of two dimensions (or one) and further rows, each the mean of all its own.

    Logits of such rows are the mean of the others, so that by Jensen's inequality they add at most
    log(P / V) to a loss of V tokens in P rows; zeros would outweigh logits far below zero.
    """

    __slots__ = ("base",)

    def __init__(self, base: Matrix, rows: int) -> None:
        self.base, self.dtype = base, base.dtype
        self.shape = (rows, *base.shape[1:])
        assert rows >= base.rows, f"{rows} rows cannot hold {base.rows}"

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """The base's own rows, then the mean."""
        own = self.base.rows
        if start < own:
            yield from self.base.read(start, min(stop, own))
        if stop > own:
            mean = self._mean()
            for first, last in pieces(self, max(start, own), stop):
                yield np.broadcast_to(mean, (last - first, self.columns))

    def _mean(self) -> Array:
        total = np.zeros(self.columns)
        for piece in self.base.read(0, self.base.rows):
            for first, last in pieces(self, 0, len(piece)):
                total += piece[first:last].astype(np.float64).sum(0)
        return (total / max(1, self.base.rows)).astype(self.dtype)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a tensor as it lies in a file."""

    row: int
    column: int
    matrix: Matrix


class Blocks(Matrix):
    """A tensor that lies in parts, each a rectangle of rows and columns; together they fill it.

    Raises: ValueError when they leave a gap or overlap.
    """

    __slots__ = ("blocks",)

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype[np.generic], blocks: Sequence[Block]
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self.blocks = sorted(blocks, key=lambda block: (block.row, block.column))
        check_filled(self)

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Views of parts that have all columns; else pieces put together."""
        while start < stop:
            here = [b for b in self.blocks if b.row <= start < b.row + b.matrix.rows]
            end = min([stop, *(b.row + b.matrix.rows for b in here)])
            if len(here) == 1:
                first = start - here[0].row
                yield from here[0].matrix.read(first, first + end - start)
            else:
                yield from self._joined(here, start, end)
            start = end

    def _joined(self, here: list[Block], start: int, stop: int) -> Iterator[Array]:
        for first, last in pieces(self, start, stop):
            made = np.empty((last - first, self.columns), self.dtype)
            for block in here:
                at, columns = 0, slice(block.column, block.column + block.matrix.columns)
                for piece in block.matrix.read(first - block.row, last - block.row):
                    made[at : at + len(piece), columns] = piece
                    at += len(piece)
            yield made


def check_filled(whole: Blocks) -> None:
    """Raise ValueError unless the parts fill the tensor, each number once."""
    covered = 0
    for block in whole.blocks:
        inside = (
            block.row >= 0 and block.column >= 0
            and block.row + block.matrix.rows <= whole.rows
            and block.column + block.matrix.columns <= whole.columns
        )  # fmt: skip
        if not inside:
            raise ValueError(f"a part at {block.row}, {block.column} lies outside {whole.shape}")
        covered += block.matrix.rows * block.matrix.columns
    if covered != whole.rows * whole.columns:
        raise ValueError(f"parts hold {covered} numbers of {whole.rows * whole.columns}")
    edges = sorted({block.row for block in whole.blocks})
    for edge in edges:
        here = [b for b in whole.blocks if b.row <= edge < b.row + b.matrix.rows]
        if sum(b.matrix.columns for b in here) != whole.columns or _overlap(here):
            raise ValueError(f"parts leave a gap or overlap in row {edge} of {whole.shape}")


def _overlap(here: list[Block]) -> bool:
    spans = sorted((b.column, b.column + b.matrix.columns) for b in here)
    return any(end > start for (_, end), (start, _) in itertools.pairwise(spans))
