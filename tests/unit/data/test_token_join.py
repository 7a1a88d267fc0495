"""Joining parts while others are being made, against joining them all at the end."""

import time
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.data.token_file import merge_token_files, write_token_file
from megatron_jobs.data.token_join import merged_as_made
from megatron_jobs.errors import DataError


def make(part: Path, number: int) -> None:
    """Two documents, or none."""
    ids = np.arange(7 * number) % 100
    with write_token_file(part / "tokens", vocab_size=100) as writer:
        writer.add(ids, [3 * number, 4 * number] if number else [])


def test_parts_that_come_in_any_order_are_joined_in_theirs(tmp_path: Path) -> None:
    parts = [tmp_path / f"part-{number}" for number in range(6)]
    made: set[Path] = set()
    (tmp_path / "out").mkdir()
    with merged_as_made(parts, made.__contains__, tmp_path / "out") as merged:
        for number in (3, 0, 1, 5, 2, 4):
            make(parts[number], number)
            time.sleep(0.02)
            made.add(parts[number])
        bin_hash = merged()
    whole = merge_token_files([part / "tokens" for part in parts], tmp_path / "whole")
    assert bin_hash == whole
    for suffix in ("bin", "idx"):
        found = (tmp_path / f"out/tokens.{suffix}").read_bytes()
        assert found == (tmp_path / f"whole.{suffix}").read_bytes()


def test_nothing_is_left_where_a_part_is_never_made(tmp_path: Path) -> None:
    parts = [tmp_path / "part-0", tmp_path / "part-1"]
    make(parts[0], 3)
    out = tmp_path / "out"
    out.mkdir()
    with (
        pytest.raises(KeyboardInterrupt),
        merged_as_made(parts, lambda part: part == parts[0], out),
    ):
        raise KeyboardInterrupt
    assert not list(out.iterdir())


def test_a_part_that_cannot_be_joined_is_told_at_the_end(tmp_path: Path) -> None:
    parts = [tmp_path / "part-0"]
    make(parts[0], 3)
    (parts[0] / "tokens.bin").write_bytes(b"12")
    (tmp_path / "out").mkdir()
    with (
        pytest.raises(DataError, match=r"tokens.idx: .*the last sequence ends at byte 42"),
        merged_as_made(parts, lambda _: True, tmp_path / "out") as merged,
    ):
        merged()
