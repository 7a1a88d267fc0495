"""A library that remembers everything, begun anew."""

import mmap

import numpy as np
import pytest
from numpy.typing import NDArray

from megatron_jobs.text import bounded_tokenizer
from megatron_jobs.text.bounded_tokenizer import BoundedTokenizer, own_memory

MIB = 1 << 20
PAGES = bytes([1]) * MIB


class Library:
    """Remembers a mebibyte of each text; the ids are its bytes."""

    made = 0

    def __init__(self, config: bytes) -> None:
        assert config == b"config"
        Library.made += 1
        self.remembered: list[mmap.mmap] = []

    def encode(self, text: bytes) -> NDArray[np.uint32]:
        memory = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE)
        memory.write(PAGES)
        self.remembered.append(memory)
        return np.frombuffer(text, np.uint8).astype(np.uint32)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_tokenizer, "LOOK_BYTES", 10)
    monkeypatch.setattr(bounded_tokenizer, "MOST_REMEMBERED", 16 * MIB)
    monkeypatch.setattr(Library, "made", 0)
    tokenizer = BoundedTokenizer(Library, b"config")
    start, peak = own_memory(), 0
    assert start > 0
    for number in range(200):
        text = b"text %d" % number
        assert tokenizer.encode(text).tolist() == list(text)
        peak = max(peak, own_memory() - start)
    assert 10 * MIB < peak < 30 * MIB
    assert 6 < Library.made < 20
