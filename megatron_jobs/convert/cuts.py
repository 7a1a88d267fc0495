"""Which rank of a mesh holds which piece of a tensor, as megatron-core deals them out."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.core_names import EXPERT, LAYER, layers_of
from megatron_jobs.convert.leaves import Cut, leaf_of
from megatron_jobs.convert.matrix import Columns, Matrix, Rows

PIECE_BYTES = 512 << 20
"""A larger piece is cut further, by rows: any checkpoint's reader puts them together."""


@dataclass(frozen=True)
class Piece:
    """A rectangle of a tensor, and the first of the ranks that hold it."""

    rank: int
    row: int
    column: int
    matrix: Matrix


def pieces_of(name: str, matrix: Matrix, model: ModelConfig, mesh: Mesh) -> Iterator[Piece]:
    """The pieces of a whole tensor; together they are all of it."""
    cut = leaf_of(name).cut
    if cut == "halves" and not model.is_gated():
        cut = "rows"
    ranks = mesh.expert_tensor if EXPERT.fullmatch(name) else mesh.tensor
    first = first_rank(name, model, mesh)
    for rank in range(1 if cut == "none" else ranks):
        for row, column, part in _share(matrix, cut, rank, ranks):
            for start in range(0, max(1, part.rows), step := _most_rows(part)):
                block = _rows(part, start, min(step, part.rows - start))
                yield Piece(first + rank, row + start, column, block)


def first_rank(name: str, model: ModelConfig, mesh: Mesh) -> int:
    """The first rank of the stage, and of the expert ranks, that a tensor is on."""
    rank = stage_of(name, model, mesh) * stage_ranks(mesh)
    expert = EXPERT.fullmatch(name)
    if expert:
        rank += int(expert["number"]) // (model.experts // mesh.expert) * mesh.expert_tensor
    return rank


def stage_ranks(mesh: Mesh) -> int:
    """The fewest ranks that one pipeline stage can have."""
    return math.lcm(mesh.tensor * mesh.context, mesh.expert * mesh.expert_tensor)


def stage_of(name: str, model: ModelConfig, mesh: Mesh) -> int:
    """The pipeline stage of a tensor: what is before the layers on the first, after on the last."""
    layer = LAYER.fullmatch(name)
    if layer:
        ends = accumulate(mesh.block_layers(layers_of(layer["stack"], model)))
        return bisect_right(tuple(ends), int(layer["number"])) % mesh.pipeline
    return 0 if name.startswith("embedding.") else mesh.pipeline - 1


def _share(matrix: Matrix, cut: Cut, rank: int, ranks: int) -> Iterator[tuple[int, int, Matrix]]:
    """(row, column, part) of what one of the tensor ranks holds."""
    if cut == "columns":
        width = matrix.columns // ranks
        start = rank * width
        yield 0, start, matrix if ranks == 1 else Columns(matrix, start, start + width)
        return
    shares = {"none": 1, "rows": ranks, "halves": 2 * ranks}[cut]
    rows = matrix.rows // shares
    places = {"none": (0,), "rows": (rank,), "halves": (rank, ranks + rank)}[cut]
    for place in places:
        yield place * rows, 0, _rows(matrix, place * rows, rows)


def _rows(matrix: Matrix, start: int, rows: int) -> Matrix:
    if rows == matrix.rows:
        return matrix
    return Rows(matrix, start, (rows, *matrix.shape[1:]))


def _most_rows(matrix: Matrix) -> int:
    return max(1, PIECE_BYTES // max(1, matrix.columns * matrix.dtype.itemsize))
