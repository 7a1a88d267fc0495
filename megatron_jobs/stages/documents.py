"""What all stages that pass over records share: their settings, their tasks, their outputs.

A stage of this kind derives its Config from `DocumentSettings`, takes OUTPUTS, and calls
`run_documents` and `gather_documents` with what makes its treatment.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.config.tree import no_such
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import (
    PARTIAL,
    read_json,
    remove,
    wait_for,
    whole_files,
    write_json,
)
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank

if TYPE_CHECKING:
    from megatron_jobs.text.forms import Form
    from megatron_jobs.text.passes import Counts, Treatment
    from megatron_jobs.text.readers import Piece, ReadRules, Unit

OUTPUTS = ("documents", "rejected", "quarantined", "counts.json")
LONGEST_WAIT = 7 * 86400.0
"""Seconds; a rank that dies ends the job long before."""
MADE_OF = "made_of.json"
MOST_UNITS = 1_000_000


class DocumentSettings(Settings):
    """What is read, and how it is cut."""

    READS_PAGES: ClassVar[bool] = False
    """Whether the stage makes texts of pages; the others read texts only."""

    input: tuple[InputPath, ...] = ()
    """Files or folders of any format that can be read, by the ends of their names."""
    urls: tuple[str, ...] = ()
    """The same elsewhere: addresses that fsspec knows (s3://, gs://, https://, ...), with * and ?
    as patterns of files where the place can list them."""
    format: str = ""
    """How all of it is read, whatever the files are called: a usual end of a name, such as jsonl,
    txt, warc, html, eml, parquet; empty goes by the ends of their names."""
    key: str = "text"
    """Of the text, in formats with keys or columns."""
    source: str = ""
    """Given to records that name no source."""
    licence: str = ""
    """Given to records that name no licence."""
    unit_mb: float = 64
    """Megabytes (10^6 bytes) that are done as one, and again after a kill: small files together,
    large ones in pieces where they can be cut."""
    max_record_mb: float = 50
    """Megabytes; a longer record is quarantined."""
    divide_by: Literal["", "source", "language", "licence"] = ""
    """Puts the documents into folders of their own, `documents/VALUE`, to be gone on with apart."""
    max_quarantined_share: float = 0.05
    """Of all that all tasks read; when more is no record the job fails and says what."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if not self.input and not self.urls:
            yield "input", "found nothing, must name at least one file or folder (or urls)"
        yield from _unknown_places(self.urls)
        yield from _unknown_format(self.format)
        for name in ("unit_mb", "max_record_mb"):
            if getattr(self, name) <= 0:
                yield name, f"{getattr(self, name)} must be positive"
        if not 0 <= self.max_quarantined_share <= 1:
            yield "max_quarantined_share", f"{self.max_quarantined_share} must be from 0 to 1"

    def files(self) -> "list[Piece]":
        """The files to read, whole; UserError for one that nobody reads."""
        from megatron_jobs.text.readers import input_files

        return input_files(self.input, self.urls, f".{self.format}" if self.format else "")


def _unknown_places(urls: Sequence[str]) -> Iterator[Problem]:
    """Addresses whose protocol nobody here speaks."""
    if not urls:
        return
    from megatron_jobs.text.readers.remote import file_system

    for place, url in enumerate(urls):
        if "://" not in url:
            yield f"urls.{place}", f"{url!r} has no ://; files that are here belong to input"
            continue
        try:
            file_system(url)
        except UserError as error:
            yield f"urls.{place}", str(error)


def _unknown_format(name: str) -> Iterator[Problem]:
    from megatron_jobs.text.readers import READERS

    if name and f".{name}" not in READERS:
        known = sorted(end[1:] for end in READERS)
        yield "format", no_such("format", name, known)


def run_documents(
    config: DocumentSettings,
    rank: Rank,
    folder: Path,
    make: "Callable[[], Treatment]",
    *,
    notes: str = "",
    form: "Form | None" = None,
) -> dict[str, float]:
    """Do this rank's units of this task; the leader waits for all and counts them.

    Args:
        notes: an output with the lines of its own that a `NotingTreatment` leaves, in shards.
        form: what its documents are written in; None for the shards that all stages read.
    """
    from megatron_jobs.text.forms import as_shards
    from megatron_jobs.text.passes import Outlets, counts_below, run_units

    units = list_units(config)
    made_of = _made_of(config, units)
    if rank.leads:
        _begin(made_of, folder, notes)
    wait_for(lambda: _is_ready(made_of, folder), "the leader to make the folder ready", seconds=600)
    of_task = units_of(len(units), rank.task, rank.tasks)
    progress = Progress(folder, total=sum(units[n].size for n in of_task), unit="bytes")
    run_units(
        folder,
        units,
        of_task[rank.index :: rank.world],
        rules=read_rules(config),
        make=make,
        report=lambda done: progress.update(done) if rank.leads else None,
        outlets=Outlets(notes, config.divide_by, form or as_shards),
    )
    if not rank.leads:
        return {}
    _wait_for_units(folder, of_task)
    progress.update(progress.total)
    counts = counts_below(folder, of_task)
    return _settle(config, folder, counts, whole=rank.tasks == 1)


def _wait_for_units(folder: Path, numbers: Sequence[int]) -> None:
    from megatron_jobs.text.passes import units_done

    def are_done() -> bool:
        return sum(1 for _ in units_done(folder, numbers)) == len(numbers)

    wait_for(are_done, "the other ranks' units", seconds=LONGEST_WAIT)


def gather_documents(
    config: DocumentSettings, folder: Path, tasks: Sequence[Path], *, notes: str = ""
) -> dict[str, float]:
    """Link the shards of all tasks into `folder`, and add their counts up."""
    from megatron_jobs.text.passes import Counts

    total = Counts()
    kinds = [*OUTPUTS[:3], *([notes] if notes else [])]
    for name in kinds:
        remove(folder / name)
        (folder / name).mkdir(parents=True)
    for task in tasks:
        total.add(Counts(**read_json(task / "counts.json")))
        for name in kinds:
            for shard in whole_files(task / name):
                link(shard, folder / name / shard.relative_to(task / name))
    return _settle(config, folder, total, whole=True)


def link(file: Path, name: Path) -> None:
    """A second name for a file; a copy where the file system has no such thing."""
    name.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)


def list_units(config: DocumentSettings) -> "list[Unit]":
    """The units of the input; the same in every task and rank."""
    from megatron_jobs.text.readers import PAGES, cut_units

    files = config.files()
    pages = [] if config.READS_PAGES else [file for file in files if file.format in PAGES]
    if pages:
        found = f"{pages[0].name} holds pages, this stage reads texts"
        raise UserError(f"input: {found}; give it the documents of an `extract` job")
    units = cut_units(files, int(config.unit_mb * 1e6))
    if not units:
        raise UserError("input: found no byte in it; give it some text")
    if len(units) > MOST_UNITS:  # their shards are named by six digits, and sort by name
        least = math.ceil(config.unit_mb * len(units) / MOST_UNITS)
        found = f"{config.unit_mb:g} cuts the input into {len(units):,} units"
        raise UserError(f"unit_mb: {found}, at most {MOST_UNITS:,} can be; {least} would do")
    return units


def read_rules(config: DocumentSettings) -> "ReadRules":
    """What a reader has to know beside the file."""
    from megatron_jobs.text.readers import ReadRules

    return ReadRules(
        key=config.key,
        limit=int(config.max_record_mb * 1e6),
        source=config.source,
        licence=config.licence,
        pages=config.READS_PAGES,
    )


def units_of(units: int, task: int, tasks: int) -> list[int]:
    """Numbers of a task's units: every tasks-th, so that neighbours of one size are dealt out."""
    return list(range(task, units, tasks))


def _made_of(config: DocumentSettings, units: "list[Unit]") -> dict[str, Any]:
    """What the shards depend on: units of other settings or files are not gone on with."""
    stats = [
        (piece.url or str(piece.path), piece.start, piece.end, piece.stamp)
        for unit in units
        for piece in unit.pieces
    ]
    settings = config.model_dump(mode="json", exclude={"max_quarantined_share"})
    return {"settings": settings, "units": hashlib.sha256(json.dumps(stats).encode()).hexdigest()}


def _is_ready(made_of: dict[str, Any], folder: Path) -> bool:
    noted = folder / MADE_OF
    return noted.exists() and bool(read_json(noted) == made_of)


def _begin(made_of: dict[str, Any], folder: Path, notes: str) -> None:
    """Go on with the units in `folder` only when they were made of the same."""
    from megatron_jobs.text.forms import SHARDS

    if _is_ready(made_of, folder):
        return
    kinds = [*OUTPUTS[:3], *([notes] if notes else [])]
    for name in (MADE_OF, *kinds, SHARDS, "counts.json", "counts"):
        remove(folder / name)
    for name in kinds:
        (folder / name).mkdir(parents=True)
    write_json(folder / MADE_OF, made_of)


def _sweep(folder: Path) -> None:
    """Remove what killed runs have left unfinished; nobody writes any more."""
    for place in filter(Path.is_dir, folder.iterdir()):
        for part in list(place.rglob(f"*{PARTIAL}")):
            remove(part)


def _settle(
    config: DocumentSettings, folder: Path, counts: "Counts", *, whole: bool
) -> dict[str, float]:
    """Write counts.json; UserError when too much of the whole was no record."""
    numbers = counts.as_numbers()
    _sweep(folder)
    write_json(folder / "counts.json", asdict(counts))
    share = numbers["quarantined"] / max(counts.read, 1)
    if whole and share > config.max_quarantined_share:
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts.quarantined.items())
        found = f"{numbers['quarantined']:.0f} of {counts.read} are no records ({reasons})"
        rule = f"at most {config.max_quarantined_share:.1%} may be (max_quarantined_share)"
        raise UserError(f"input: {found}, {rule}; they are in {folder / 'quarantined'}")
    return numbers
