"""A GGUF file that was written, read back: is each number what it was, as its format has it?"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.convert.gguf_in import open_gguf
from megatron_jobs.convert.gguf_names import ARCHITECTURES
from megatron_jobs.convert.gguf_out import gguf_tensors
from megatron_jobs.convert.matrix import Converted, Matrix
from megatron_jobs.convert.settings import GgufFormat
from megatron_jobs.errors import DataError

BLOCK = 32
SHARES: dict[GgufFormat, float] = {
    "f32": 0.0,
    "f16": 2**-11,
    "bf16": 2**-8,
    "q8_0": 1 / 254 + 2**-10,
    "q4_0": 1 / 8 + 2**-10,
}
"""Of the largest number of a block, how far another may be off: half a step of its format, and of
q4_0 a whole one, since its steps reach from -8 to 7 times an eighth of the largest."""
BLOCKED = ("q8_0", "q4_0")
LEAST = 2**-23
"""What the offset of Gemma's norms costs a number near 1."""


def check_gguf(file: Path, wanted: Mapping[str, Matrix], form: GgufFormat) -> int:
    """How many tensors were read back; DataError naming the first that is too far from `wanted`.

    Args:
        wanted: by Hugging Face's names, what was to be written.
    """
    opened = open_gguf(file)
    architecture = ARCHITECTURES[opened.config["model_type"]]
    found, wanted = opened.tensors, architecture.kept(wanted)
    left = set(found) ^ set(wanted)
    if left:
        raise DataError(f"{file}: {min(left)}: is in one of source and result only")
    if form in BLOCKED:  # blocks lie along GGUF's rows, which may be columns of theirs
        found = opened.file.tensors
        wanted = gguf_tensors(wanted, architecture, opened.config)
    for name, matrix in wanted.items():
        worst = _worst(found[name], matrix)
        if not worst <= SHARES[form]:  # nan too
            rule = f"off by {worst:.2g} of the largest number of its block, over {SHARES[form]:.2g}"
            raise DataError(f"{file}: {name}: what was written is not what was read: {rule}")
    return len(wanted)


def _worst(one: Matrix, other: Matrix) -> float:
    """The largest difference, as a share of the largest number of its block."""
    if one.shape != other.shape:
        return float("nan")
    worst = 0.0
    for left, right in zip(_pieces(one), _pieces(other), strict=True):
        size = BLOCK if left.shape[1] % BLOCK == 0 else left.shape[1]
        left, right = left.reshape(-1, size), right.reshape(-1, size)
        apart = np.abs(left - right).max(1) - LEAST
        largest = np.maximum(np.abs(right).max(1), np.finfo(np.float32).tiny)
        worst = max(worst, float((apart / largest).max()))
    return worst


def _pieces(matrix: Matrix) -> Iterator[NDArray[np.float32]]:
    """Rows as fp32, in stretches that depend on the shape alone."""
    whole = Converted(matrix, np.dtype(np.float32))
    step = max(1, (1 << 20) // (4 * max(1, whole.columns)))
    for start in range(0, whole.rows, step):
        rows = min(step, whole.rows - start)
        made = np.empty((rows, whole.columns), np.float32)
        at = 0
        for piece in whole.read(start, start + rows):
            made[at : at + len(piece)] = piece
            at += len(piece)
        yield made
