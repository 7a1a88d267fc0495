"""SentencePiece's .model files, read and written without the library.

A model is one protocol buffer (sentencepiece_model.proto): pieces with scores and types, what the
trainer was told, and the normalizer. Fields that say nothing of the ids are not kept.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from megatron_jobs.errors import DataError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""


class PieceType(IntEnum):
    """What a piece is; the numbers of the file."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelType(IntEnum):
    """How text is cut into pieces; the numbers of the file."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class Piece:
    """One token; its id is its place."""

    text: str
    score: float
    type: PieceType = PieceType.NORMAL


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """What a .model file says of the ids of a text."""

    pieces: list[Piece]
    model_type: ModelType
    byte_fallback: bool = False
    bos_id: int = -1
    """Of the token that begins a text; negative for none, as the next two."""
    eos_id: int = -1
    pad_id: int = -1
    normalizer: str = "identity"
    charsmap: bytes = b""
    """The normalizer's rules, compiled; empty for none."""
    dummy_prefix: bool = True
    """A space is put before every text."""
    collapse_spaces: bool = False
    """Spaces at both ends are left out, and of several in a row all but one."""
    escape_spaces: bool = True
    """A space is written as the sign U+2581."""
    suffix_spaces: bool = False
    """A space is part of the word before it."""


def read_model(path: Path) -> SentencePieceModel:
    """The model of a file; DataError when it is none, or cut short."""
    try:
        return parse_model(path.read_bytes())
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole SentencePiece model: {error}") from error


def parse_model(raw: bytes) -> SentencePieceModel:
    """The model that a file's bytes hold; ValueError, IndexError or struct.error for others."""
    pieces: list[Piece] = []
    parts: dict[int, bytes] = {2: b"", 3: b""}
    for number, value in _fields(raw):
        if number == 1 and isinstance(value, bytes):
            pieces.append(_piece(value))
        elif isinstance(value, bytes):
            parts[number] = value
    if not pieces:
        raise ValueError("no piece in it")
    trainer, normalizer = dict(_fields(parts[2])), dict(_fields(parts[3]))
    return SentencePieceModel(
        pieces=pieces,
        model_type=ModelType(_int(trainer, 3, 1)),
        byte_fallback=bool(_int(trainer, 35, 0)),
        bos_id=_id(trainer, 41, 1, pieces),
        eos_id=_id(trainer, 42, 2, pieces),
        pad_id=_id(trainer, 43, -1, pieces),
        normalizer=_text(normalizer, 1),
        charsmap=_raw(normalizer, 2),
        dummy_prefix=bool(_int(normalizer, 3, 1)),
        collapse_spaces=bool(_int(normalizer, 4, 1)),
        escape_spaces=bool(_int(normalizer, 5, 1)),
        suffix_spaces=bool(_int(trainer, 24, 0)),
    )


def write_model(model: SentencePieceModel, path: Path) -> None:
    """Write a file that the library loads; equal models give equal bytes."""
    path.write_bytes(dump_model(model))


def dump_model(model: SentencePieceModel) -> bytes:
    """A model as a file's bytes."""
    pieces = b"".join(_block(1, _dump_piece(piece)) for piece in model.pieces)
    places = {kind: place for place, kind in enumerate(piece.type for piece in model.pieces)}
    unknown = places.get(PieceType.UNKNOWN, -1)
    trainer = [
        *((3, int(model.model_type)), (4, len(model.pieces)), (24, int(model.suffix_spaces))),
        *((35, int(model.byte_fallback)), (40, unknown), (41, model.bos_id)),
        *((42, model.eos_id), (43, model.pad_id)),
    ]
    names = [(45, unknown), (46, model.bos_id), (47, model.eos_id), (48, model.pad_id)]
    named = [_block(key, model.pieces[i].text.encode()) for key, i in names if i >= 0]
    flags = ((3, model.dummy_prefix), (4, model.collapse_spaces), (5, model.escape_spaces))
    rules = _block(1, model.normalizer.encode()) + _block(2, model.charsmap)
    normalizer = rules + b"".join(_number(key, int(flag)) for key, flag in flags)
    spec = b"".join(_number(key, value) for key, value in trainer) + b"".join(named)
    return pieces + _block(2, spec) + _block(3, normalizer)


def _piece(raw: bytes) -> Piece:
    found = dict(_fields(raw))
    score = found.get(2, b"\0\0\0\0")
    if not isinstance(score, bytes):
        raise ValueError("a piece's score is no float")
    value: float = struct.unpack("<f", score)[0]
    return Piece(_text(found, 1), value, PieceType(_int(found, 3, 1)))


def _dump_piece(piece: Piece) -> bytes:
    score = _varint(2 << 3 | FIXED32) + struct.pack("<f", piece.score)
    return _block(1, piece.text.encode()) + score + _number(3, int(piece.type))


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of each field; numbers as int, all else as bytes."""
    at = 0
    while at < len(raw):
        key, at = _read_varint(raw, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _read_varint(raw, at)
            yield number, value
            continue
        if wire == BYTES:
            size, at = _read_varint(raw, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(raw):
            raise ValueError(f"a field of {size} bytes at byte {at} of {len(raw)}")
        yield number, raw[at : at + size]
        at += size


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative number is written as its two's complement
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _block(number: int, raw: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(raw)) + raw


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | VARINT) + _varint(value)


def _int(found: dict[int, int | bytes], number: int, default: int) -> int:
    value = found.get(number, default)
    if not isinstance(value, int):
        raise ValueError(f"field {number} is no number")
    signed = value & 0xFFFFFFFF
    return signed - (1 << 32) if signed >= 1 << 31 else signed


def _id(found: dict[int, int | bytes], number: int, default: int, pieces: list[Piece]) -> int:
    """The id of a role; -1 where no control piece stands there."""
    value = _int(found, number, default)
    there = 0 <= value < len(pieces) and pieces[value].type == PieceType.CONTROL
    return value if there else -1


def _raw(found: dict[int, int | bytes], number: int) -> bytes:
    value = found.get(number, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} is a number")
    return value


def _text(found: dict[int, int | bytes], number: int) -> str:
    return _raw(found, number).decode("utf-8")
