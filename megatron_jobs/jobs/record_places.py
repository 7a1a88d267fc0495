"""Where a run keeps documents: as records, in token files, and in what is not looked through."""

import base64
import gzip
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from megatron_jobs.errors import DataError
from megatron_jobs.jobs.folder import MOVED, RECEIPTS, TASKS, JobFolder
from megatron_jobs.runtime.files import PARTIAL

KINDS = ("documents", "rejected", "quarantined", "review", "hits")
"""Folders of lines about documents."""
FILES = ("rejected.jsonl", "review.jsonl")
"""Such files that stand alone."""
TOKENS = "tokens"
SUFFIXES = (".jsonl.zst", ".jsonl.gz", ".jsonl")
OF_THE_JOB = {"checkpoints", "index", "model", "metrics.jsonl", "loaded.json", "tensorboard"} | {
    *("loss.svg", "progress.json", "SAVE", "comparison.json"),
    *("evaluation.json", "made_of.json", "counts", "counts.json", "ids"),
    *("fetched.json", "matches.json", "duplicates.json", ".meet"),
}
"""Weights and samples, which are judged by their steps, and what says nothing of one document."""


@dataclass
class Places:
    """The files of a run that may hold documents."""

    lines: list[Path] = field(default_factory=list)
    """Of JSON."""
    named: list[Path] = field(default_factory=list)
    """Prefixes of token files that have names."""
    bare: list[Path] = field(default_factory=list)
    """Of those that have none."""
    others: list[str] = field(default_factory=list)
    """JOB/OUTPUT of what nobody looks through, relative to the run."""


def list_places(run: Path, folders: Collection[Path]) -> Places:
    """What stands in the folders of some jobs of a run, and in those of their tasks."""
    places, others = Places(), set()
    for folder in folders:
        kept = JobFolder(folder)
        own = {*kept.bookkeeping, *OF_THE_JOB}
        own |= {path.name for path in (kept.started, kept.receipt, kept.numbers)}
        own |= {path.name for path in (kept.outcome, kept.stopped)}
        for file in _files_below(folder):
            entry = _entry(folder, file)
            if entry in own or not entry or _is_placed(file, entry, places):
                continue
            unfinished = " (unfinished)" if PARTIAL in file.name else ""
            others.add(f"{(folder / entry).relative_to(run)}{unfinished}")
    places.others = sorted(others)
    return places


def _files_below(folder: Path) -> Iterator[Path]:
    for place, names, files in os.walk(folder):
        names.sort()
        yield from (Path(place, name) for name in sorted(files))


def _entry(folder: Path, file: Path) -> str:
    """The output that a file is of, also where it is that of a task; "" for notes on tasks."""
    parts = file.relative_to(folder).parts
    if parts[0] != TASKS:
        return parts[0]
    return "" if len(parts) < 4 or parts[2] in (RECEIPTS, MOVED) else parts[3]


def _is_placed(file: Path, entry: str, places: Places) -> bool:
    """Whether a file is one of those that are looked through, or only goes with one of them."""
    if PARTIAL in file.name:
        return False
    if entry in FILES or (entry in KINDS and file.name.endswith(SUFFIXES)):
        places.lines.append(file)
        return True
    if file.suffix == ".names":
        places.named.append(file.with_suffix(""))
    if file.suffix == ".bin" and not file.with_suffix(".names").exists():
        places.bare.append(file.with_suffix(""))
    return file.suffix in (".names", ".bin", ".idx") or (entry == TOKENS and file.suffix == ".json")


def find_in_lines(file: Path, ids: Collection[str]) -> Iterator[tuple[str, int]]:
    """(id, line) of what a file of `Places.lines` tells of some documents.

    Of what is no record, such as a line that could not be read, an id in quotes counts.
    Raises: DataError when it cannot be read to its end.
    """
    import zstandard

    try:
        for number, line in enumerate(_lines(file), 1):
            for name in _told_of(orjson.loads(line), ids):
                yield name, number
    except (zstandard.ZstdError, EOFError, gzip.BadGzipFile, orjson.JSONDecodeError) as error:
        raise DataError(f"{file}: cannot be read to its end: {error}") from error


def _lines(file: Path) -> Iterator[bytes]:
    from megatron_jobs.text.shards import SUFFIX, read_shard

    if file.name.endswith(SUFFIX):
        yield from read_shard(file)
        return
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        yield from stream


def _told_of(line: dict[str, Any], ids: Collection[str]) -> Iterator[str]:
    """Which of some documents a line is about."""
    name = line.get("id", line.get("document"))
    if name is not None:
        yield from [name] if name in ids else []
        return
    packed = line.get("head") or line.get("base64")
    raw = base64.b64decode(packed) if packed else line.get("text", "").encode()
    place = line.get("place") or f"{line.get('file')}:{line.get('line')}"
    for name in ids:
        written = (json.dumps(name).encode(), json.dumps(name, ensure_ascii=False).encode())
        if name == place or any(one in raw for one in written):
            yield name
