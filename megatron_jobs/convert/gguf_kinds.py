"""Number formats of GGUF: how blocks of numbers lie, taken apart and made a few rows at a time.

R rows, C columns. The arithmetic of blocks is that of the package `gguf`, llama.cpp's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from megatron_jobs.convert.matrix import PIECE, Array, Matrix
from megatron_jobs.errors import UserError

Bytes = NDArray[np.uint8]
PLAIN: dict[str, np.dtype[np.generic]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype("<f8"),
}
"""Formats without blocks: numpy reads them."""
BLOCKS = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
    *("IQ1_S", "IQ1_M", "IQ4_NL", "IQ4_XS"),
)
"""Formats of blocks that the package can take apart."""
MADE_AT_ONCE = PIECE // 4
"""Bytes of fp32 that are taken apart or made at once: numpy needs several times as much."""


@dataclass(frozen=True)
class Kind:
    """A number format of GGUF."""

    name: str
    number: int
    """In a file."""
    block: int
    """Numbers of a block; it divides the columns."""
    size: int
    """Bytes of a block."""

    def row_bytes(self, columns: int) -> int:
        """Of a row of whole blocks."""
        return columns // self.block * self.size


def _kinds() -> dict[str, Kind]:
    members = GGMLQuantizationType.__members__
    known = [name for name in (*PLAIN, *BLOCKS) if name in members]
    return {
        name: Kind(name, int(members[name]), *GGML_QUANT_SIZES[members[name]]) for name in known
    }


KINDS = _kinds()
"""By name; F32, Q8_0."""
BY_NUMBER = {kind.number: kind for kind in KINDS.values()}


class Dequantised(Matrix):
    """A tensor of blocks as fp32, taken apart when it is read.

    Args:
        blocks: uint8 [R, bytes of a row]; of a single dimension all its blocks, [blocks, size].
    """

    dtype = np.dtype(np.float32)

    def __init__(self, blocks: Matrix, kind: Kind, shape: tuple[int, ...]) -> None:
        self.blocks, self.kind, self.shape = blocks, kind, shape

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are made."""
        if len(self.shape) > 1:
            yield from self._taken_apart(start, stop)
            return
        block = self.kind.block
        first = start // block * block
        for piece in self._taken_apart(start // block, -(-stop // block)):
            yield piece.reshape(-1, 1)[max(0, start - first) : stop - first]
            first += piece.size

    def _taken_apart(self, start: int, stop: int) -> Iterator[Array]:
        width = self.blocks.columns // self.kind.size * self.kind.block
        step = max(1, MADE_AT_ONCE // (4 * width))
        for piece in self.blocks.read(start, stop):
            for first in range(0, len(piece), step):
                rows = np.ascontiguousarray(piece[first : first + step])
                with np.errstate(all="ignore"):  # a scale may be infinite, or no number
                    made = quants.dequantize(rows, GGMLQuantizationType(self.kind.number))
                yield made


class Quantised(Matrix):
    """The rows of another as the bytes of blocks: uint8 [R, bytes of a row]."""

    dtype = np.dtype(np.uint8)

    def __init__(self, base: Matrix, kind: Kind) -> None:
        assert base.columns % kind.block == 0, f"{base.shape} in blocks of {kind.block}"
        self.base, self.kind = base, kind
        self.shape = (base.rows, kind.row_bytes(base.columns))

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are made."""
        step = max(1, MADE_AT_ONCE // (4 * self.base.columns))
        number = GGMLQuantizationType(self.kind.number)
        for piece in self.base.read(start, stop):
            for first in range(0, len(piece), step):
                rows = np.ascontiguousarray(piece[first : first + step], np.float32)
                yield quants.quantize(rows, number)


class Added(Matrix):
    """Another's numbers and a constant, in fp32 and rounded once to the other's format.

    GGUF keeps Gemma's norms as 1 + w. What llama.cpp adds to a bf16 w, in fp32, comes off again
    without loss if w is 0 or |w| >= 2^-16; below that w returns with an error of at most 2^-24.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, base: Matrix, constant: float) -> None:
        self.base, self.shape, self.constant = base, base.shape, np.float32(constant)

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are made."""
        for piece in self.base.read(start, stop):
            step = max(1, PIECE // (4 * self.columns))
            for first in range(0, len(piece), step):
                yield piece[first : first + step].astype(np.float32) + self.constant


class Bounded(Matrix):
    """The same numbers as fp16, rounded to nearest even.

    Raises: UserError, when it is read, for a number that fp16 cannot hold.
    """

    dtype = np.dtype(np.float16)

    def __init__(self, base: Matrix, name: str) -> None:
        self.base, self.shape, self.name = base, base.shape, name

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are made."""
        step = max(1, MADE_AT_ONCE // max(1, 4 * self.columns))
        for piece in self.base.read(start, stop):
            for first in range(0, len(piece), step):
                rows = piece[first : first + step].astype(np.float32, copy=False)
                with np.errstate(over="ignore"):
                    made = rows.astype(np.float16)
                if np.isinf(made).any():
                    found = float(np.abs(rows).max())
                    rule = "fp16 ends at 65504; bf16, f32 and q8_0 hold it"
                    raise UserError(f"{self.name}: found {found:g}; {rule}")
                yield made
