"""Weights in fp8 with scales, as they are published: read, never written.

R rows, C columns. A scale belongs to a block of a matrix, to a row of it, or to all of it; which, a
config.json says in its `quantization_config`:

| quant_method | scales of X.weight | |
|---|---|---|
| fp8 | `X.weight_scale_inv` | blocks, `weight_block_size`; without that one, or one a row |
| fp8, fbgemm_fp8, modelopt | `X.weight_scale` | one, or one a row |
| compressed-tensors | `X.weight_scale` | by `config_groups`: tensor, channel, group, block |

Numbers are multiplied by their scale, whatever it is called. Source: DeepSeek-AI 2024, section
3.3.2, arXiv:2412.19437; the documentation of transformers, "Quantization", and of
compressed-tensors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from megatron_jobs.convert.matrix import DTYPES, FP16, Array, Converted, Matrix, pieces
from megatron_jobs.errors import DataError, UserError

Block = tuple[int, int]
"""Rows and columns that share a scale."""
DEEPSEEK: Block = (128, 128)
"""Where no config.json says it."""
SCALES = ("_scale_inv", "_scale")
"""Ends of names: `X.weight_scale` is what `X.weight` is multiplied by."""
ACTIVATIONS = (
    ".input_scale", ".input_scale_ub", ".activation_scale", ".output_scale",
    ".k_scale", ".v_scale", ".q_scale", ".kv_scale",
)  # fmt: skip
"""Ends of names of what activations are quantised by: nothing of the weights."""
FP8 = (np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e5m2))
PACKED = (".weight", ".qweight", ".weight_packed", "_blocks")
"""Ends of names of weights, whole numbers where they are quantised otherwise."""
CURE = (
    "of quantised weights only fp8 is read; "
    "convert a copy in bf16: transformers' from_pretrained, dequantize() and save_pretrained"
)


@dataclass(frozen=True)
class Scheme:
    """What scales of a folder may belong to."""

    blocks: tuple[Block, ...] = (DEEPSEEK,)
    plain: bool = False
    """Whether a scale may belong to a row, or to a whole matrix."""
    dtype: np.dtype[np.generic] = DTYPES["bf16"]
    """Of what is made."""


def scheme_of(
    config: Mapping[str, Any], dtype: np.dtype[np.generic] = DTYPES["bf16"], where: str = "config"
) -> Scheme:
    """What a config.json says.

    Args:
        dtype: of what is made.
    Raises: DataError, beginning with `where`, for blocks that are none.
    """
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return Scheme(dtype=dtype)
    try:
        found = list(_blocks(said))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise DataError(f"{where}: quantization_config: not read: {error}") from error
    blocks = tuple(dict.fromkeys(block for block in found if block))
    return Scheme(blocks, plain=None in found or not found, dtype=dtype)


def _blocks(said: Mapping[str, Any]) -> Iterator[Block | None]:
    """Of each kind of matrix; None: a scale for each row, or one."""
    groups = said.get("config_groups") or {}
    if not groups:
        yield _block(said.get("weight_block_size"))
    for group in groups.values():
        weights = group.get("weights") or {}
        if weights.get("strategy") == "group":
            yield _block([1, weights["group_size"]])
        else:
            yield _block(weights.get("block_structure"))


def _block(sizes: Any) -> Block | None:
    if sizes is None:
        return None
    if not isinstance(sizes, list) or len(sizes) != 2:
        raise ValueError(f"found blocks of {sizes!r}, two counts are looked for")
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"found blocks of {sizes!r}, two counts are looked for")
    return sizes[0], sizes[1]


class Dequantised(Matrix):
    """Numbers of an fp8 matrix.

    Args:
        base: [R, C] fp8.
        scales: [R / rows, C / columns], both rounded up.
        block: (rows, columns).
    """

    def __init__(
        self, base: Matrix, scales: Matrix, block: Block, dtype: np.dtype[np.generic]
    ) -> None:
        self.base, self.scales, self.block, self.shape = base, scales, block, base.shape
        self.dtype = dtype
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
        rows = np.arange(first, last) // self.block[0]
        scales = list(self.scales.read(int(rows[0]), int(rows[-1]) + 1))
        found = np.concatenate(scales).astype(np.float32)
        wide = np.repeat(found, self.block[1], axis=1)[:, : self.columns]
        own: NDArray[np.float32] = wide[rows - rows[0]]
        return own


def dequantised(theirs: Mapping[str, Matrix], scheme: Scheme = Scheme()) -> Mapping[str, Matrix]:
    """The same tensors, those in fp8 in another format; their scales, and those of activations, are
    gone.

    Raises: DataError when one in fp8 has no scales, or scales of another shape.
    """
    eighths = {name for name, matrix in theirs.items() if matrix.dtype in FP8}
    if not eighths:
        return theirs
    found: dict[str, Matrix] = {}
    for name, matrix in theirs.items():
        if name in eighths:
            found[name] = _dequantised(name, matrix, theirs, scheme)
        elif not (_base_of(name) in eighths or name.endswith(ACTIVATIONS)):
            found[name] = matrix
    return found


def of_activations(theirs: Mapping[str, Matrix]) -> list[str]:
    """Names of what is left out of a model in fp8: scales of what is computed with."""
    if not any(matrix.dtype in FP8 for matrix in theirs.values()):
        return []
    return [name for name in theirs if name.endswith(ACTIVATIONS)]


def check_method(theirs: Mapping[str, Matrix], config: Mapping[str, Any], where: str) -> None:
    """UserError, with the cure, for weights that are quantised in a way that we cannot read."""
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return
    odd = (name for name in theirs if name.endswith(PACKED) and theirs[name].dtype.kind in "iu")
    name = next(odd, "")
    if name:
        method = f"{said.get('quant_method')!r} of quantization_config"
        raise UserError(f"{where}: {name}: found {theirs[name].dtype}, {method}; {CURE}")


def _base_of(name: str) -> str:
    """What a scale is of; nothing for what is none."""
    end = next((end for end in SCALES if name.endswith(end)), "")
    return name.removesuffix(end) if end else ""


def _dequantised(name: str, matrix: Matrix, theirs: Mapping[str, Matrix], scheme: Scheme) -> Matrix:
    there = [name + end for end in SCALES if name + end in theirs]
    if not there:
        raise DataError(f"{name}: {matrix.dtype} without {name}{SCALES[0]}, its scales")
    if len(there) > 1:
        raise DataError(f"{name}: has {there[0]} and {there[1]}; only one can be meant")
    scales = theirs[there[0]]
    if scales.dtype.kind in "biuc":
        raise DataError(f"{there[0]}: found {scales.dtype}; scales are floating-point numbers")
    if len(matrix.shape) != 2:
        raise DataError(f"{name}: {list(matrix.shape)} in fp8; scales are known of matrices")
    plain = scheme.plain or (scheme.blocks == (DEEPSEEK,) and there[0].endswith(SCALES[1]))
    block = _block_of(scales.shape, matrix, scheme, plain=plain)
    if block is None:
        raise DataError(f"{name}: {_odd(scales.shape, matrix, scheme, plain=plain)}")
    if scheme.dtype == FP16:  # which says what it cannot hold
        return Converted(Dequantised(matrix, scales, block, DTYPES["fp32"]), FP16, name)
    return Dequantised(matrix, scales, block, scheme.dtype)


def _block_of(
    scales: tuple[int, ...], matrix: Matrix, scheme: Scheme, *, plain: bool
) -> Block | None:
    """What a scale of such shape belongs to."""
    rows, columns = matrix.shape
    for block in scheme.blocks:
        if scales == _grid(matrix, block):
            return block
    if plain and scales in ((rows,), (rows, 1)):
        return 1, max(1, columns)
    return (max(1, rows), max(1, columns)) if plain and set(scales) <= {1} else None


def _grid(matrix: Matrix, block: Block) -> tuple[int, int]:
    return -(-matrix.rows // block[0]), -(-matrix.columns // block[1])


def _odd(scales: tuple[int, ...], matrix: Matrix, scheme: Scheme, *, plain: bool) -> str:
    known = [f"{list(_grid(matrix, block))} are those of its blocks" for block in scheme.blocks]
    known += [f"one, or one for each of its {matrix.rows} rows, is known"] if plain else []
    return f"scales {list(scales)}: {', '.join(known)}"
