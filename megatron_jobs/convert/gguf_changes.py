"""What lies differently in GGUF and at Hugging Face, as views of a tensor, there and back.

R rows, C columns, D columns of a head, E experts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.convert.gguf_kinds import Added
from megatron_jobs.convert.gguf_names import Change
from megatron_jobs.convert.matrix import PIECE, Array, Matrix, Ordered, Rows, Turned


class Shuffled(Matrix):
    """Rows in another order within each group of as many; whole groups are read at once.

    Args:
        order: int64 [rows of a group], the row that each is.
    """

    def __init__(self, base: Matrix, order: NDArray[np.int64]) -> None:
        assert base.rows % len(order) == 0, f"{base.rows} rows in groups of {len(order)}"
        self.base, self.order, self.shape, self.dtype = base, order, base.shape, base.dtype

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are made."""
        unit = len(self.order)
        at_once = unit * max(1, PIECE // max(1, unit * self.columns * self.dtype.itemsize))
        for first in range(start // unit * unit, stop, at_once):
            last = min(first + at_once, -(-stop // unit) * unit)
            whole = np.empty((last - first, self.columns), self.dtype)
            at = 0
            for piece in self.base.read(first, last):
                whole[at : at + len(piece)] = piece
                at += len(piece)
            order = np.arange(0, last - first, unit)[:, None] + self.order
            yield whole[order.reshape(-1)[max(0, start - first) : stop - first]]


class Relaid(Matrix):
    """A small tensor under another shape."""

    def __init__(self, base: Matrix, shape: tuple[int, ...]) -> None:
        self.base, self.shape, self.dtype = base, shape, base.dtype

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """All of it is made."""
        yield self.base.array().reshape(self.rows, self.columns)[start:stop]


def to_hugging_face(matrix: Matrix, change: Change, config: Mapping[str, Any]) -> Matrix:
    """A tensor of GGUF's as Hugging Face keeps it; ValueError when it cannot be.

    Args:
        config: config.json, for the number of heads.
    """
    match change:
        case "queries" | "keys":
            return _in_heads(matrix, _heads(change, config), apart=True)
        case "one":
            return Added(matrix, -1)
        case "turned":
            return Turned(matrix)
        case "row":
            return Relaid(matrix, (1, matrix.rows))
        case "neox":
            kept = _neox(matrix.rows, config)
            return Ordered([matrix], kept, matrix.shape)
        case "same":
            return matrix


def to_gguf(matrix: Matrix, change: Change, config: Mapping[str, Any]) -> Matrix:
    """The way back."""
    match change:
        case "queries" | "keys":
            return _in_heads(matrix, _heads(change, config), apart=False)
        case "one":
            return Added(matrix, 1)
        case "turned":
            return matrix.base if isinstance(matrix, Turned) else Turned(matrix)
        case "row":
            return Relaid(matrix, (matrix.columns,))
        case "neox":
            return Ordered([matrix], np.argsort(_neox(matrix.rows, config)), matrix.shape)
        case "same":
            return matrix


def _heads(change: Change, config: Mapping[str, Any]) -> int:
    name = "num_attention_heads" if change == "queries" else "num_key_value_heads"
    return int(config[name])


def _in_heads(matrix: Matrix, heads: int, *, apart: bool) -> Matrix:
    """Columns of angles: the two that turn together as neighbours, or half a head apart.

    Hugging Face turns column i of a head with column D/2 + i, the angles of Llama's own code turn
    2 i with 2 i + 1; rows of the projections are in the order of those columns.
    """
    size, left = divmod(matrix.rows, heads)
    if left or size % 2:
        raise ValueError(f"{matrix.rows} rows are not {heads} heads of an even size")
    pairs = (size // 2, 2) if apart else (2, size // 2)
    return Shuffled(matrix, np.arange(size).reshape(pairs).T.reshape(-1))


def _neox(rows: int, config: Mapping[str, Any]) -> NDArray[np.int64]:
    """Row [heads, 3, D] of Hugging Face's -> row [3, heads, D] of GGUF's."""
    heads = int(config["num_attention_heads"])
    if rows % (3 * heads):
        raise ValueError(f"{rows} rows are not q, k and v of {heads} heads")
    return np.arange(rows).reshape(3, heads, -1).swapaxes(0, 1).reshape(-1)


def unstacked(matrix: Matrix) -> list[Matrix]:
    """Each expert's matrix of a stack [E, R, C]; ValueError when it is none."""
    if len(matrix.shape) != 3:
        raise ValueError(f"{list(matrix.shape)} is no stack of experts")
    experts, rows, columns = matrix.shape
    return [Rows(matrix, expert * rows, (rows, columns)) for expert in range(experts)]


def stacked(parts: Sequence[Matrix]) -> Matrix:
    """Experts' matrices as one [E, R, C]."""
    return Ordered(parts, None, (len(parts), *parts[0].shape))
