"""Weights in fp8 with a scale for each block, as DeepSeek-V3 is published: read, never written.

R rows, C columns. Source: DeepSeek-AI 2024, section 3.3.2, arXiv:2412.19437.
"""

from collections.abc import Iterator, Mapping

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from megatron_jobs.convert.matrix import Array, Matrix, pieces
from megatron_jobs.errors import DataError

BLOCK = 128
"""Rows, and columns, that share a scale."""
SCALE = "_scale_inv"
"""`X.weight_scale_inv` is what blocks of `X.weight` are multiplied by."""
FP8 = (np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2))


class Dequantised(Matrix):
    """bf16 numbers of an fp8 matrix.

    Args:
        base: [R, C] fp8.
        scales: [R / 128, C / 128], both rounded up.
    """

    def __init__(self, base: Matrix, scales: Matrix) -> None:
        wanted = (-(-base.rows // BLOCK), -(-base.columns // BLOCK))
        if scales.shape != wanted:
            raise DataError(f"scales {list(scales.shape)}: {list(wanted)} are those of its blocks")
        self.base, self.scales, self.shape = base, scales, base.shape
        self.dtype = np.dtype(ml_dtypes.bfloat16)
        self.numbers = np.arange(256, dtype=np.uint8).view(base.dtype).astype(np.float32)

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are made."""
        for first, last in pieces(self, start, stop):
            at = first
            factors = self._factors(first, last)
            for piece in self.base.read(first, last):
                own = factors[at - first : at - first + len(piece)]
                at += len(piece)
                yield (self.numbers[piece.view(np.uint8)] * own).astype(self.dtype)

    def piece_rows(self) -> int:
        """Fewer than would be made at once: numbers and scales are fp32 in between."""
        return max(1, super().piece_rows() // 4)

    def _factors(self, first: int, last: int) -> NDArray[np.float32]:
        """fp32 [last - first, C]."""
        rows = np.arange(first, last) // BLOCK
        scales = list(self.scales.read(int(rows[0]), int(rows[-1]) + 1))
        found = np.concatenate(scales).astype(np.float32)
        wide = np.repeat(found, BLOCK, axis=1)[:, : self.columns]
        own: NDArray[np.float32] = wide[rows - rows[0]]
        return own


def dequantised(theirs: Mapping[str, Matrix]) -> Mapping[str, Matrix]:
    """The same tensors, those in fp8 as bf16 and their scales gone.

    Raises: DataError when one in fp8 has no scales, or scales of another shape.
    """
    found: dict[str, Matrix] = {}
    for name, matrix in theirs.items():
        if matrix.dtype in FP8:
            found[name] = _dequantised(name, matrix, theirs)
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in theirs):
            found[name] = matrix
    return found


def _dequantised(name: str, matrix: Matrix, theirs: Mapping[str, Matrix]) -> Matrix:
    scales = theirs.get(name + SCALE)
    if scales is None:
        raise DataError(f"{name}: {matrix.dtype} without {name}{SCALE}, its scales")
    try:
        return Dequantised(matrix, scales)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
