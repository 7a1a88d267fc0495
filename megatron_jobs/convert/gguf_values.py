"""GGUF's header as bytes: metadata and the line of each tensor."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from megatron_jobs.convert.gguf_file import ALIGNMENT, ARRAY, MAGIC, STRING
from megatron_jobs.convert.gguf_kinds import Kind

VERSION = 3
TYPES = {
    name: number
    for number, name in enumerate(
        ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool"]
    )
} | {"uint64": 10, "int64": 11, "float64": 12}
"""numpy's names of numbers -> types of values."""


def header_bytes(
    metadata: Mapping[str, Any],
    shapes: Mapping[str, tuple[tuple[int, ...], Kind]],
    sizes: Mapping[str, int],
) -> bytes:
    """All that stands before the first tensor's bytes, in the order of `shapes`.

    Args:
        metadata: numpy numbers and arrays, str, lists of str.
        shapes: outermost dimension first, and the format.
        sizes: bytes of each tensor; the next begins at a multiple of ALIGNMENT.
    """
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(shapes), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _value(value)]
    offset = 0
    for name, (shape, kind) in shapes.items():
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        parts += [_text(name), dimensions, struct.pack("<IQ", kind.number, offset)]
        offset += -(-sizes[name] // ALIGNMENT) * ALIGNMENT
    header = b"".join(parts)
    return header + bytes(-len(header) % ALIGNMENT)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _text(value)
    if isinstance(value, np.ndarray):
        head = struct.pack("<IIQ", ARRAY, TYPES[value.dtype.name], len(value))
        return head + value.astype(value.dtype.newbyteorder("<")).tobytes()
    if isinstance(value, Sequence):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(_text, value))
    array = np.asarray(value)
    return struct.pack("<I", TYPES[array.dtype.name]) + array.tobytes()


def plain(value: Any) -> Any:
    """A value as it is read back."""
    if isinstance(value, np.float32):
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value
