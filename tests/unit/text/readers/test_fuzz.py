"""Whole files are read whole; broken in any way they raise nothing, end, and can be written."""

import random
from itertools import islice
from pathlib import Path

import pytest

from megatron_jobs.text.record import Record
from tests.fuzz import FORMATS, attempts, check

WHOLE = {
    "a.jsonl": 19, "a.jsonl.gz": 19, "a.jsonl.zst": 19,
    "a.warc": 11, "a.warc.gz": 11, "b.warc.gz": 11, "a.warc.zst": 11, "a.wet": 2,
    "a.txt": 1, "a.html": 1, "a.html.gz": 1, "a.eml": 1,
    "a.parquet": 40, "a.arrow": 40, "a.mds": 20, "a.mds.zst": 20,
}  # fmt: skip
"""Records in a file of each kind."""


@pytest.mark.parametrize("name", FORMATS)
def test_any_file(tmp_path: Path, name: str) -> None:
    draw = random.Random(name)
    for unit_bytes in (300, 1 << 30):
        items = check(tmp_path, name, FORMATS[name](draw), unit_bytes)
        assert sum(isinstance(item, Record) for item in items) == WHOLE[name]
    for data, unit_bytes in islice(attempts(name, 1), 60):
        check(tmp_path, name, data, unit_bytes)
