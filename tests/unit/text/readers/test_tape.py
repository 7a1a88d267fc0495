"""A stream read by chunks of any size, beside the same bytes in one piece."""

import random
import re

import pytest

from megatron_jobs.text.members import Chunk
from megatron_jobs.text.readers.tape import Tape

WORD = re.compile(rb"(?<=a)bc{1,2}a")


@pytest.mark.parametrize("seed", range(200))
def test_pass_by(seed: int) -> None:
    draw = random.Random(seed)
    data = bytes(draw.choices(b"abcx", [4, 4, 4, seed % 40], k=draw.randrange(200)))
    cuts = sorted(draw.randrange(len(data) + 1) for _ in range(draw.randrange(30)))
    parts = [data[i:j] for i, j in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    tape = Tape(Chunk(part, 0, False) for part in parts)
    at = tape.move(draw.randrange(40))
    if WORD.match(data, at):  # what stands before the place may be forgotten
        at += tape.move(1)
    size = draw.randrange(150)
    match = WORD.search(data, at)
    end = min(at + size, len(data), match.start() if match else len(data))
    assert tape.pass_by(size, WORD, overlap=6) == end - at
    assert (tape.at, tape.peek(9)) == (end, data[end : end + 9])
