"""JSON of bounded size and depth."""

import os
from pathlib import Path

import pytest

from megatron_jobs.convert.json_file import read_limited_json
from megatron_jobs.errors import DataError


def test_a_value(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"a": [1, {"a": "ü"}]}')
    assert read_limited_json(tmp_path / "a") == {"a": [1, {"a": "ü"}]}
    with pytest.raises(FileNotFoundError):
        read_limited_json(tmp_path / "b")


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (b"1" * 101, r"a: has over 100 bytes, the most that is read of such a file"),
        (b"", r"a: found 0 bytes that are no JSON"),
        (b"\xff", r"a: found 1 bytes that are no JSON"),
        (b'{"a": 1, "a": 2}', r"a: has the key 'a' twice"),
        (b'{"b": {"a": 1, "a": 2}}', r"a: has the key 'a' twice"),
    ],
)
def test_what_is_none(held: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(held)
    with pytest.raises(DataError, match=message):
        read_limited_json(tmp_path / "a", 100)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting(opening: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(opening * 200_000)
    with pytest.raises(DataError, match=r"a: is nested too deeply"):
        read_limited_json(tmp_path / "a")


def test_a_number_that_takes_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("9" * 1_000_000)
    with pytest.raises(DataError, match=r"are no JSON \(Exceeds the limit"):
        read_limited_json(tmp_path / "a")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(DataError, match="is no file"):
            read_limited_json(path)
