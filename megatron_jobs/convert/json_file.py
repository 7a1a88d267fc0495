"""JSON of a source that nobody vouches for: of bounded size and depth, each key once."""

import json
from pathlib import Path
from typing import Any

from megatron_jobs.errors import DataError

CONFIG_BYTES = 16 << 20
"""What a config.json or an index of tensors may have at most; the largest known have 10 MB."""


def read_limited_json(path: Path, limit: int = CONFIG_BYTES) -> Any:
    """The value of a JSON file; DataError, naming it, when it is not one of at most `limit` bytes.

    FileNotFoundError when there is none.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no file")
    with path.open("rb") as file:
        found = file.read(limit + 1)
    if len(found) > limit:
        raise DataError(f"{path}: has over {limit:,} bytes, the most that is read of such a file")
    return parse_json(found, str(path))


def parse_json(found: bytes, where: str) -> Any:
    """The value of some JSON; DataError, beginning with `where`, when it is none or odd."""
    try:
        return json.loads(found.decode("utf-8"), object_pairs_hook=_unique)
    except KeyError as error:
        raise DataError(f"{where}: has the key {error} twice") from error
    except ValueError as error:  # of JSON, or of UTF-8
        raise DataError(
            f"{where}: found {len(found):,} bytes that are no JSON ({error})"
        ) from error
    except RecursionError as error:
        raise DataError(f"{where}: is nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, one in pairs:
        if key in value:
            raise KeyError(key)
        value[key] = one
    return value
