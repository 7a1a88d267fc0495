"""An index of a run whose jobs may have been run again since: its token files where they are now.

index.json names them relative to itself, as they stood when it was built.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_jobs.errors import DataError
from megatron_jobs.jobs.receipt import REPLACED

if TYPE_CHECKING:
    from megatron_jobs.data.sample_index import SampleIndex
    from megatron_jobs.data.token_file import TokenFile

STAMP = "????????-??????-??????"
"""How the names of folders in RUN/.replaced end; see `jobs.receipt`."""


def open_index(run: Path, folder: Path) -> "SampleIndex":
    """An index that stands in a run or in its RUN/.replaced; of outdated files the right version.

    Raises: DataError when a token file of its size is nowhere.
    """
    from megatron_jobs.data.sample_index import SampleIndex, read_facts

    facts = read_facts(folder)
    home = _home(run, folder)
    tokens = [_open_tokens(run, home, source) for source in facts["sources"]]
    return SampleIndex(folder, facts, tokens)


def _home(run: Path, folder: Path) -> Path:
    """Where an index stood when it was built."""
    moved = folder.parent
    if moved.parent != run / REPLACED:
        return folder
    return run / moved.name[: -len(STAMP) - 1] / folder.name


def _open_tokens(run: Path, home: Path, source: dict[str, Any]) -> "TokenFile":
    from megatron_jobs.data.token_file import TokenFile

    named = Path(os.path.normpath(home / source["prefix"]))
    found = ""
    for prefix in [named, *_moved(run, named)]:
        try:
            file = TokenFile.open(prefix)
        except DataError as error:
            found = found or str(error)
            continue
        if (len(file), file.tokens) == (source["documents"], source["tokens"]):
            return file
        found = found or f"{prefix}: found {len(file)} documents and {file.tokens} tokens"
    built = f"{source['documents']} documents and {source['tokens']} tokens"
    raise DataError(f"{found}; {home} was built of {built}")


def _moved(run: Path, prefix: Path) -> Iterator[Path]:
    """Where a token file of the run may be now."""
    if not prefix.is_relative_to(run):
        return
    job, *rest = prefix.relative_to(run).parts
    yield from (folder.joinpath(*rest) for folder in (run / REPLACED).glob(f"{job}-{STAMP}"))
