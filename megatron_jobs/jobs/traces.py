"""Where a document went in a run: records, token files, training steps, checkpoints.

What a checkpoint has seen is what its training read up to its step, and what the checkpoint had
seen whose weights that training began with, in this run or another.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.jobs.index_places import open_index
from megatron_jobs.jobs.record_places import Places, find_in_lines, list_places
from megatron_jobs.jobs.status import read_jobs
from megatron_jobs.jobs.trainings import (
    Training,
    maker_of,
    outdated_folders,
    outdated_trainings,
    step_of,
    trainings,
)

if TYPE_CHECKING:
    from megatron_jobs.data.ledger import Ledger

__all__ = ["Search", "Trace", "documents_of_step", "trace_documents", "trainings"]


@dataclass
class Trace:
    """All places of one document in one run."""

    id: str
    shards: list[str] = field(default_factory=list)
    """FILE:LINE of records, and of what was put aside or noted of them, relative to the run."""
    tokens: list[dict[str, Any]] = field(default_factory=list)
    """{file, document} for each document of that name in a token file."""
    steps: dict[str, list[int]] = field(default_factory=dict)
    """Job -> steps that it was trained on, of those made."""
    planned: dict[str, list[int]] = field(default_factory=dict)
    """Job -> steps that are still to come."""
    checkpoints: dict[str, list[str]] = field(default_factory=dict)
    """Job -> its checkpoints, or converted model, whose weights have seen it."""


@dataclass
class Search:
    """What was found, and what remains open."""

    traces: list[Trace]
    untold: list[str]
    """Sentences: what cannot be told, and why."""
    unsearched: list[str]
    """JOB/OUTPUT of files that may hold documents and were not looked through."""


def trace_documents(run: Path, ids: Iterable[str], *, shards: bool = True) -> Search:
    """Find documents by their ids, in the order given, also in work that was moved aside.

    Args:
        shards: whether all records, and lines put aside, are read through as well.
    Raises: UserError when a run has no documents, no tokens and no training.
    """
    run = Path(os.path.abspath(run))
    folders = [*(run / name for name in read_jobs(run)), *outdated_folders(run)]
    weights = [*trainings(run), *outdated_trainings(run)]
    places = list_places(run, folders)
    if not weights and not (places.lines or places.named or places.bare):
        raise UserError(f"{run}: no job in it has records or tokens, or trains on an index")
    looking = _Looking(dict.fromkeys(ids))
    if shards:
        looking.look_in_lines(run, places)
    for training in weights:
        looking.look_in_training(training)
    for prefix in places.named:
        looking.documents_in(prefix)
    looking.note_tokens()
    bare = (f"{prefix}.bin has no names beside it" for prefix in places.bare)
    untold = [*looking.untold, *(text for text in bare if text not in looking.untold)]
    return Search(list(looking.traces.values()), untold, places.others)


class _Looking:
    """Goes through places for some documents; what is asked for twice is looked up once."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.traces = {name: Trace(name) for name in ids}
        self.untold: dict[str, None] = {}
        self._documents: dict[Path, dict[str, list[int]]] = {}
        self._samples: dict[Path, dict[str, list[int]]] = {}
        self._inherited: dict[Path, set[str]] = {}

    def look_in_lines(self, run: Path, places: Places) -> None:
        """Note the lines that tell of one of the documents; a file of two names is read once."""
        files: dict[tuple[int, int], list[Path]] = {}
        for file in places.lines:
            stat = file.stat()
            files.setdefault((stat.st_dev, stat.st_ino), []).append(file)
        for names in files.values():
            try:
                for name, line in find_in_lines(names[0], self.traces):
                    self.traces[name].shards += [f"{f.relative_to(run)}:{line}" for f in names]
            except DataError as error:
                self._leave_open(str(error))

    def look_in_training(self, training: Training) -> None:
        """Note steps and checkpoints; also outdated work, which makes no steps any more."""
        steps, inherited = self.steps_of(training), self.inherited(training)
        for name, trace in self.traces.items():
            made = [step for step in steps.get(name, []) if step <= training.last_step]
            later = range(training.last_step + 1, training.steps + 1)
            if made:
                trace.steps[training.name] = made
            if coming := [step for step in steps.get(name, []) if step in later]:
                trace.planned[training.name] = coming
            first = 0 if name in inherited else min(made, default=None)
            saved = training.checkpoints.items()
            if saw := [str(path) for at, path in saved if first is not None and at >= first]:
                trace.checkpoints[training.name] = saw

    def steps_of(self, training: Training) -> dict[str, list[int]]:
        """The steps of a training, made or not, that read each of the documents."""
        if not training.trains:
            return {}
        index, size = training.find_index(), training.samples_per_step
        if index is None or not size:
            if training.last_step > (training.index_step or 0):
                gone = training.settings.get("index", "its index")
                self._leave_open(f"{training.name}: {gone} is not what it was trained on, or gone")
            return {}
        if training.index_step is None:
            self._leave_open(f"{training.name}: its steps, before it has begun with its `load`")
            return {}
        first = training.index_step + 1
        found = self._samples_in(training.run, index)
        return {
            name: sorted({sample // size + first for sample in samples})
            for name, samples in found.items()
        }

    def inherited(self, training: Training) -> set[str]:
        """The documents that the weights had seen with which a training began."""
        if training.folder in self._inherited:
            return self._inherited[training.folder]
        self._inherited[training.folder] = set()
        source = training.began_with
        if source is None or not training.checkpoints:
            return set()
        maker = maker_of(source, training.began)
        if maker is None:
            self._leave_open(f"{training.name}: what {source} had seen, with which it began")
            return set()
        last = step_of(source, maker)
        steps = self.steps_of(maker).items()
        seen = self.inherited(maker) | {name for name, made in steps if made and made[0] <= last}
        self._inherited[training.folder] = seen
        return seen

    def _samples_in(self, run: Path, index: Path) -> dict[str, list[int]]:
        """The train samples of an index that hold each of the documents."""
        if index in self._samples:
            return self._samples[index]
        from megatron_jobs.data.ledger import Ledger

        found: dict[str, list[int]] = {name: [] for name in self.traces}
        self._samples[index] = found
        try:
            ledger = Ledger(open_index(run, index))
        except DataError as error:
            self._leave_open(str(error))
            return found
        for source in range(len(ledger.index.tokens)):
            self._add_samples(ledger, source, found)
        return found

    def _add_samples(self, ledger: "Ledger", source: int, found: dict[str, list[int]]) -> None:
        documents = self.documents_in(_prefix(ledger, source))
        owners: dict[int, str] = {
            sequence: name
            for name, numbers in documents.items()
            for number in numbers
            for sequence in ledger.sequences_of(source, number)
        }
        for sighting in ledger.sightings(source, owners):
            if sighting.split == "train":
                found[owners[sighting.sequence]].append(sighting.sample)

    def documents_in(self, prefix: Path) -> dict[str, list[int]]:
        """The numbers of the documents in a token file, by name."""
        from megatron_jobs.data.document_names import DocumentNames
        from megatron_jobs.data.token_file import TokenFile

        if prefix not in self._documents:
            self._documents[prefix] = {}
            try:
                names = DocumentNames.of(TokenFile.open(prefix))
                self._documents[prefix] = names.find_all(self.traces)
            except DataError as error:
                self._leave_open(str(error))
        return self._documents[prefix]

    def note_tokens(self) -> None:
        """Note what `documents_in` has found."""
        for prefix, documents in self._documents.items():
            for name, numbers in documents.items():
                found = ({"file": str(prefix), "document": number} for number in numbers)
                self.traces[name].tokens += found

    def _leave_open(self, sentence: str) -> None:
        self.untold[sentence] = None


def documents_of_step(run: Path, step: int, job: str = "") -> list[tuple[int, str, str, int]]:
    """(sample, source, document, tokens) of all that a step is trained on, in order.

    Args:
        step: of the run, as its checkpoints count; those before a `load` are of another job.
        job: which training; "" where there is only one.
    Raises: UserError when there is no such training or step; DataError when its index is gone.
    """
    from megatron_jobs.data.ledger import Ledger
    from megatron_jobs.data.source_name import source_name

    training = _one_of([one for one in trainings(run) if one.trains], job, run)
    index, before = training.find_index(), training.index_step
    if index is None:
        raise DataError(f"{training.name}: its index is not what it was trained on, or gone")
    if before is None:
        raise UserError(f"step: {training.name} has not begun; its `load` decides what is read")
    ledger = Ledger(open_index(run, index))
    samples, size = ledger.splits["train"], training.samples_per_step
    last = min(training.steps, before + len(samples) // size)
    if not before < step <= last:
        steps = f"{training.name} has {before + 1} to {last}"
        other = f"; those before are of {training.began_with}" if before else ""
        raise UserError(f"step: found {step}, {steps}{other}")
    return [
        (
            sample,
            source_name(ledger.index.tokens[passage.source].prefix),
            ledger.name(passage.source, passage.sequence),
            passage.tokens,
        )
        for sample in range((step - 1 - before) * size, (step - before) * size)
        for passage in ledger.passages("train", sample)
    ]


def _prefix(ledger: "Ledger", source: int) -> Path:
    """Of a token file, without the way to it from the index."""
    return Path(os.path.abspath(ledger.index.tokens[source].prefix))


def _one_of(found: Sequence[Training], job: str, run: Path) -> Training:
    named = [training for training in found if job in ("", training.name)]
    if len(named) == 1:
        return named[0]
    names = ", ".join(training.name for training in found) or "none"
    raise UserError(f"job: found {job or 'no name'}; {run} has these trainings: {names}")
