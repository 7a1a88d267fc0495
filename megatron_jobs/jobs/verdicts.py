"""What the jobs of a run that pass over records have rejected and quarantined, and why."""

import base64
import binascii
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import zstandard

from megatron_jobs.config.tree import no_such
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.status import read_jobs
from megatron_jobs.runtime.files import read_json
from megatron_jobs.text.passes import Counts
from megatron_jobs.text.shards import COUNTS, QUARANTINED, REJECTED, read_shard, shards_below

BEGINNING = 400
"""Characters of a text, or bytes of what is none, that an example shows."""
IS_QUARANTINED = "quarantined: "
"""Before the reason, where rules and reasons stand side by side."""


@dataclass(frozen=True)
class Example:
    """One record, or what is none, that did not go on."""

    id: str
    url: str
    source: str
    language: str
    found: Any
    limit: Any
    text: str
    """Its beginning."""


@dataclass
class Taken:
    """What one rule, or one reason of quarantine, has taken."""

    count: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    """Only of those that were read; see `look`."""
    languages: Counter[str] = field(default_factory=Counter)
    """Only of those that were read; see `look`."""
    examples: list[Example] = field(default_factory=list)


@dataclass
class JobVerdicts:
    """What a job has done with its records."""

    job: str
    places: list[Path]
    """The job's folder, or those of its tasks as long as they have not been gathered."""
    counts: Counts
    finished: bool
    taken: dict[str, Taken]
    """By rule, the greediest first; what is quarantined behind, as IS_QUARANTINED + reason."""


def read_verdicts(run: Path, job: str = "", rule: str = "") -> list[JobVerdicts]:
    """The counts of a run's jobs over records, in the plan's order, or of one of them.

    Args:
        rule: only those of this rule: its full name, or the beginning of it before a dot.
    Raises: UserError when there is no such job or rule, or nothing has been judged yet.
    """
    jobs = read_jobs(run)
    if job and job not in jobs:
        raise UserError(no_such("job", job, sorted(jobs)))
    read = (_of_job(JobFolder(run / name)) for name in ([job] if job else jobs))
    found = [verdicts for verdicts in read if verdicts is not None]
    if not found:
        which = f"job {job}" if job else "no job of it"
        raise UserError(f"{run}: {which} has judged no records yet; a job over records must run")
    if rule:
        _only(found, rule)
    return found


def look(verdicts: JobVerdicts, *, examples: int, everything: bool) -> None:
    """Read the shards: sources and languages of all that was taken, and examples.

    Args:
        examples: so many for each rule, the first of the input.
        everything: read to the end; else only until there are examples enough.
    Raises: DataError when a shard is damaged.
    """
    missing = {
        rule: min(examples, taken.count)
        for rule, taken in verdicts.taken.items()
        if taken.count and examples
    }
    for kind in (REJECTED, QUARANTINED):
        for rule, example in _entries(verdicts.places, kind):
            taken = verdicts.taken.get(rule)
            if taken is None:
                continue
            taken.sources[example.source] += 1
            taken.languages[example.language] += 1
            if missing.get(rule):
                taken.examples.append(example)
                missing[rule] -= 1
            elif not everything and not _any_left(missing, kind):
                break


def _any_left(missing: dict[str, int], kind: str) -> bool:
    quarantined = kind == QUARANTINED
    return any(n for rule, n in missing.items() if rule.startswith(IS_QUARANTINED) == quarantined)


def _of_job(folder: JobFolder) -> JobVerdicts | None:
    places = [folder.path] if _has_counts(folder.path) else _tasks(folder)
    if not places:
        return None
    counts = Counts()
    for place in places:
        for part in _counts_in(place):
            counts.add(part)
    whole = (folder.path / "counts.json").exists()
    taken = {rule: Taken(n) for rule, n in _greediest(counts.rejected)}
    taken |= {f"{IS_QUARANTINED}{why}": Taken(n) for why, n in _greediest(counts.quarantined)}
    return JobVerdicts(folder.path.name, places, counts, whole, taken)


def _greediest(by: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(by.items(), key=lambda pair: (-pair[1], pair[0]))


def _tasks(folder: JobFolder) -> list[Path]:
    paths = sorted(folder.path.glob("tasks/*/*"), key=lambda path: (len(path.name), path.name))
    return [path for path in paths if JobFolder(path).task is not None and _has_counts(path)]


def _has_counts(path: Path) -> bool:
    return (path / "counts.json").exists() or any((path / COUNTS).glob("*.json"))


def _counts_in(path: Path) -> Iterator[Counts]:
    whole = path / "counts.json"
    files = [whole] if whole.exists() else sorted((path / COUNTS).glob("*.json"))
    for file in files:
        try:
            yield Counts(**read_json(file))
        except TypeError as error:
            raise DataError(f"{file}: no counts of records: {error}") from error


def _only(found: Sequence[JobVerdicts], rule: str) -> None:
    """Leave the rules of that name."""
    known = sorted({name for verdicts in found for name in verdicts.taken})
    wanted = {name for name in known if name == rule or name.startswith(f"{rule}.")}
    if not wanted:
        raise UserError(f"--rule: {no_such('rule that took anything', rule, known)}")
    for verdicts in found:
        verdicts.taken = {name: t for name, t in verdicts.taken.items() if name in wanted}


def _entries(places: Sequence[Path], kind: str) -> Iterator[tuple[str, Example]]:
    """(rule, example) of all that is in the shards of a kind."""
    make = _rejected if kind == REJECTED else _quarantined
    for shard in (shard for place in places for shard in shards_below(place / kind)):
        try:
            for line in read_shard(shard):
                yield make(orjson.loads(line))
        except (zstandard.ZstdError, ValueError, KeyError) as error:
            raise DataError(f"{shard}: damaged: {error}; run the job again") from error


def _rejected(record: dict[str, Any]) -> tuple[str, Example]:
    verdict = record["verdict"]
    words: dict[str, str] = defaultdict(str, record)
    return verdict["rule"], Example(
        words["id"],
        words["url"],
        words["source"],
        words["language"],
        verdict["found"],
        verdict["limit"],
        words["text"][:BEGINNING],
    )


def _quarantined(fact: dict[str, Any]) -> tuple[str, Example]:
    try:
        head = base64.b64decode(fact["head"])[:BEGINNING]
    except binascii.Error:
        head = b""
    text = head.decode("utf-8", "replace")
    name = f"{IS_QUARANTINED}{fact['reason']}"
    return name, Example(fact["place"], "", "", "", fact["bytes"], None, text)
