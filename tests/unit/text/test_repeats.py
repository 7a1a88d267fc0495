"""Suffix arrays and repeated stretches, against their definitions."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs._repeats import repeated_stretches, suffix_array

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"


def texts_to_sort() -> list[bytes]:
    draw = random.Random(0)
    found = [b"", b"a", b"aa", b"ab", b"ba", b"mississippi", b"a" * 50, b"ab" * 40, b"abcab" * 20]
    found += [bytes(draw.choices(b"ab", k=draw.randint(0, 300))) for _ in range(100)]
    found += [draw.randbytes(draw.randint(0, 300)) for _ in range(100)]
    return [*found, BOOKS.read_bytes()[:20_000], bytes([255, 0, 255, 255, 0])]


def test_suffixes_are_in_order() -> None:
    for text in texts_to_sort():
        assert suffix_array(text).tolist() == sorted(range(len(text)), key=lambda i: text[i:])


def slow_stretches(documents: list[bytes], length: int) -> list[tuple[int, int]]:
    """By the definition: all bytes of windows that stand earlier too."""
    windows: dict[bytes, list[int]] = {}
    base = 0
    for document in documents:
        for at in range(len(document) - length + 1):
            windows.setdefault(document[at : at + length], []).append(base + at)
        base += len(document)
    later = [place for places in windows.values() for place in places[1:]]
    cut = {at for place in later for at in range(place, place + length)}
    marks = [at in cut for at in range(base)] + [False]
    starts = [at for at in range(base) if marks[at] and (at == 0 or not marks[at - 1])]
    return [(at, marks.index(False, at)) for at in starts]


def stretches(documents: list[bytes], length: int, threads: int = 1) -> list[tuple[int, int]]:
    ends = np.cumsum([len(document) for document in documents], dtype=np.int64)
    found = repeated_stretches(b"".join(documents), ends, length=length, threads=threads)
    return [(int(start), int(end)) for start, end in found]


@pytest.mark.parametrize("threads", [1, 3])
def test_equals_the_definition(threads: int) -> None:
    draw = random.Random(threads)
    for _ in range(150):
        letters = draw.choice([b"a", b"ab", b"abcdef"])
        sizes = [draw.randint(0, 60) for _ in range(draw.randint(1, 6))]
        documents = [bytes(draw.choices(letters, k=size)) for size in sizes]
        if draw.random() < 0.5:
            documents.append(draw.choice(documents) + b"x" + documents[0])
        length = draw.randint(1, 12)
        assert stretches(documents, length, threads) == slow_stretches(documents, length)


def test_real_text_with_a_planted_copy() -> None:
    """A passage is cut where it stands for the second time, to the byte."""
    texts = [json.loads(line)["text"].encode() for line in BOOKS.open()][:30]
    assert stretches(texts, 200) == []
    copy = texts[20][:700] + b"|" + texts[3][500:1500] + b"|" + texts[20][700:]
    start = sum(map(len, texts[:20])) + 701
    assert stretches([*texts[:20], copy, *texts[21:]], 200) == [(start, start + 1000)]


def test_what_repeats_itself() -> None:
    assert stretches([b"a" * 100, b"xy"], 10) == [(1, 100)]
    assert stretches([b"abc" * 30], 10) == [(3, 90)]


def test_bad_ends() -> None:
    def call(ends: list[int], length: int = 2) -> None:
        repeated_stretches(b"abcd", np.array(ends, np.int64), length=length, threads=1)

    with pytest.raises(ValueError, match="ends: the last is 3, the text has 4 bytes"):
        call([3])
    with pytest.raises(ValueError, match="ends: found 1 after 2, of 4 bytes; must rise"):
        call([2, 1])
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        call([4], 0)
