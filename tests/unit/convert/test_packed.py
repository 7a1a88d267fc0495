"""Bytes kept compressed are given back, whichever stretch of them is asked for."""

import numpy as np
import pytest

from megatron_jobs.convert.matrix import PIECE
from megatron_jobs.convert.packed import Packing

RANDOM = np.random.default_rng(0)
WORDS = b"the same words again and again " * 50_000
NOISE = RANDOM.integers(0, 256, 2 * PIECE + 5, np.uint8).tobytes()


@pytest.mark.parametrize("data", [b"", b"a", WORDS, NOISE, WORDS + NOISE])
def test_all_comes_back_in_pieces(data: bytes) -> None:
    packing = Packing()
    for at in range(0, len(data), 70_001):
        packing.add(data[at : at + 70_001])
    matrix = packing.matrix()
    assert matrix.bytes == len(data)
    for start, stop in [(0, len(data)), (0, 0), (len(data) // 3, len(data) // 2)]:
        found = list(matrix.read(start, stop))
        assert b"".join(piece.tobytes() for piece in found) == data[start:stop]
        assert all(piece.nbytes <= PIECE for piece in found)


def test_what_repeats_takes_little() -> None:
    packing = Packing()
    packing.add(WORDS)
    assert len(packing.matrix().packed) < len(WORDS) / 50
