"""Lists from files: one entry a line, or a JSON list; plain, .gz or .zst."""

import gzip
import io
import json
from pathlib import Path
from typing import IO, cast

import zstandard

from megatron_jobs.errors import DataError


def read_lines(path: Path) -> list[str]:
    """The entries of a file, without blanks around them; no empty ones, none twice.

    A line that begins with # is a comment. A file that ends in .json holds a list of strings.
    Raises: DataError when it is no UTF-8, or no such list.
    """
    try:
        with _open(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8").read()
        listed = _listed(path, text)
    except (UnicodeDecodeError, OSError, EOFError, zstandard.ZstdError) as error:
        raise DataError(f"{path}: cannot be read as a list: {error}") from error
    return list(dict.fromkeys(entry for entry in map(str.strip, listed) if entry))


def _open(path: Path) -> IO[bytes]:
    if path.name.endswith(".gz"):
        return cast(IO[bytes], gzip.open(path))
    if path.name.endswith(".zst"):
        return cast(IO[bytes], zstandard.open(path, "rb"))
    return path.open("rb")


def _listed(path: Path, text: str) -> list[str]:
    if ".json" not in path.suffixes:
        return [line for line in text.splitlines() if not line.startswith("#")]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: no JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise DataError(f"{path}: found no list of strings; give one entry a line, or a JSON list")
    return found
