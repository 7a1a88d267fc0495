"""What an earlier index gave, and how its sources go on when a run changes its mix.

An order says which sample of a source is the n-th. Of a source that stays, the order of the earlier
index goes on behind the samples that it gave; a source is the same when its token file is, byte for
byte. Of any other one, documents are known again by their names where both files have them: those
that were given are left out of its first pass. Orders of sources that are left out are kept, so
that they go on when they come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._data import Shuffler
from megatron_jobs.data.document_names import names_path
from megatron_jobs.data.given_documents import Counts, count_given, find_given
from megatron_jobs.data.index_plan import Source
from megatron_jobs.data.packing import PackedOrder, shuffled_epochs
from megatron_jobs.data.sample_index import (
    index_identity,
    load_blend,
    load_order,
    path_from,
    read_facts,
)
from megatron_jobs.data.source_name import source_name
from megatron_jobs.data.source_order import SourceOrder, extend_order
from megatron_jobs.data.token_file import TokenFile, idx_path
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import file_hash

SHARED = ("seq_len", "packing", "split", "tokenizer_hash")
"""What an index has to have in common with the earlier one."""


@dataclass(frozen=True, eq=False)
class Given:
    """What an earlier index gave of one token file, and what it has not given yet."""

    hashes: tuple[str, str]
    """SHA-256 of the .bin and the .idx."""
    documents: range
    """Those of the train split."""
    first: int
    """Samples that were given, over all indices before."""
    order: SourceOrder | PackedOrder
    """What follows them."""
    lead: int = 0
    """Visits, or bins, of a first pass over some of the documents; 0 where it was over all."""
    prefix: Path | None = None
    """Where the token file was; None when nobody said."""

    def go_on(
        self, tokens: TokenFile, *, samples: int | None, seq_len: int, seed: int
    ) -> SourceOrder | PackedOrder:
        """At least `samples` samples behind those given; None for what is left of the order.

        Where that is not enough, further epochs follow, each shuffled on its own.
        """
        missing = (samples or 0) - len(self.order)
        if missing <= 0:
            return self.order
        shuffler = Shuffler((seed + self.first + len(self.order)) % 2**32)
        if isinstance(self.order, SourceOrder):
            lengths = np.array(tokens.lengths)
            return extend_order(
                self.order, lengths, self.documents, shuffler, more=missing, seq_len=seq_len
            )
        more = shuffled_epochs(shuffler, len(self.order.first) - 1 - self.lead, missing)
        shuffle: NDArray[Any] = np.concatenate([self.order.shuffle, more + self.lead])
        return replace(self.order, shuffle=shuffle)

    def epochs(self, order: SourceOrder | PackedOrder) -> int:
        """How often `order`, of `go_on`, goes through the documents, what was given included."""
        if isinstance(order, SourceOrder):
            return -(-len(order.documents) // len(self.documents))
        passes = (self.first + len(order) - self.lead) // (len(order.first) - 1 - self.lead)
        return passes + bool(self.lead)

    def documents_given(self) -> tuple[TokenFile, Counts] | None:
        """The token file and how often it gave each sequence; None where it is gone or nameless."""
        prefix = self.prefix
        if prefix is None or not idx_path(prefix).is_file() or not names_path(prefix).is_file():
            return None
        if file_hash(idx_path(prefix)) != self.hashes[1]:
            return None
        tokens = TokenFile.open(prefix)
        sizes = {"samples": self.first, "lead": self.lead, "sequences": len(tokens)}
        return tokens, count_given(self.order, self.documents, **sizes)

    def save(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the order under `name`; returns the rest, for a JSON file."""
        self.order.save(folder, name)
        bounds = [self.documents.start, self.documents.stop]
        record = {"hashes": list(self.hashes), "documents": bounds, "first": self.first}
        return record | ({"lead": self.lead} if self.lead else {})


@dataclass(frozen=True)
class Note:
    """What is told of one source of an index that follows an earlier one."""

    source: str
    """Its name."""
    samples: int | None = None
    """Behind how many of its samples it goes on; None for another token file than before."""
    documents: int = 0
    """Of its train split, of another token file than before."""
    left_out: int = 0
    """Of those, known to have been given: they are not in its first pass."""
    held_out: int = 0
    """Documents of its other splits that are known to have been given."""
    named: bool = True
    """Whether its documents have names by which they could be known again."""

    def __str__(self) -> str:
        if self.samples is not None:
            return f"{self.source}: goes on behind {self.samples} samples"
        if not self.named:
            return f"{self.source}: new; without names, no document given before is known again"
        if not self.left_out and not self.held_out:
            return f"{self.source}: new"
        text = f"{self.left_out} of its {self.documents} train documents were given before"
        text = f"{self.source}: another file; {text} and are left out of its first pass"
        if not self.held_out:
            return text
        return f"{text}; of its valid and test documents {self.held_out} were trained on"


@dataclass(frozen=True, eq=False)
class Begin:
    """How the order of one source begins."""

    note: Note
    given: Given | None = None
    """What the same token file gave, behind which it goes on."""
    times: Counts | None = None
    """[sequences of its file], how often other files gave each; None where none is known."""


class Earlier:
    """The sources of an earlier index, behind the first `samples` of its train split.

    Args:
        folder: the earlier index.
        shared: of the index that is built now: seq_len, packing, split, tokenizer_hash.
    Raises: UserError when it has fewer samples, or another seq_len, say.
    """

    def __init__(self, folder: Path, samples: int, shared: dict[str, Any]) -> None:
        facts = read_facts(folder)
        for name in SHARED:
            if facts[name] != shared[name]:
                found = f"{folder} has {name} {facts[name]}, this index {shared[name]}"
                raise UserError(f"earlier: {found}; its samples go on only with the same")
        self.folder = folder
        self.identity = index_identity(facts)
        self.all = _read_given(folder, facts, samples)

    def begin(self, sources: Sequence[Source], documents: Sequence[range]) -> list[Begin]:
        """How each source begins, of which a train split has some documents.

        Raises: UserError when a file is named twice.
        """
        _check_once(sources)
        old = [found for given in self.left_out(sources) if (found := given.documents_given())]
        pairs = zip(sources, documents, strict=True)
        return [self._same(*pair) or _other(*pair, old) for pair in pairs]

    def left_out(self, sources: Sequence[Source]) -> list[Given]:
        """What was given of other token files than those."""
        known = {source.hashes for source in sources}
        return [given for given in self.all if given.hashes not in known]

    def describe(self, folder: Path, samples: int, sources: Sequence[Source]) -> dict[str, Any]:
        """What index.json in `folder` says of it."""
        left = [given.prefix for given in self.left_out(sources)]
        return {
            "index": path_from(folder, self.folder),
            "identity": self.identity,
            "samples": samples,
            "left_out": [prefix and path_from(folder, prefix) for prefix in left],
        }

    def _same(self, source: Source, documents: range) -> Begin | None:
        """Behind what was given of the same token file."""
        same = [given for given in self.all if given.hashes == source.hashes]
        if not same:
            return None
        given = max(same, key=lambda one: one.first)  # named twice: behind what both have given
        if given.documents != documents:
            found = f"train documents {documents.start} to {documents.stop} of {source.prefix}"
            was = f"{self.folder} has {given.documents.start} to {given.documents.stop}"
            raise UserError(f"earlier: {found}, {was}; its samples go on only with the same")
        return Begin(Note(source_name(source.prefix), samples=given.first), given)


def check_shared(folder: Path, begins: Sequence[Begin]) -> None:
    """Raise UserError when no source has given anything in the earlier index in `folder`."""
    if any(begin.given or begin.note.left_out or begin.note.held_out for begin in begins):
        return
    found = f"{folder} has none of this index's token files, and no document known by its name"
    raise UserError(f"earlier: {found}; set only_new_sources: true if all of them are new")


def _check_once(sources: Sequence[Source]) -> None:
    """One file under two names would begin twice at the same sample."""
    seen: dict[tuple[str, str], Path] = {}
    for source in sources:
        if source.hashes in seen:
            found = f"{seen[source.hashes]} and {source.prefix} are one file"
            cure = "name it once and add up its weights"
            raise UserError(f"tokens: {found}, which goes on behind `earlier` only once; {cure}")
        seen[source.hashes] = source.prefix


def _other(source: Source, documents: range, old: Sequence[tuple[TokenFile, Counts]]) -> Begin:
    """A token file that the earlier index has not; its documents are known by their names."""
    name, tokens = source_name(source.prefix), source.tokens
    if not names_path(source.prefix).is_file():
        return Begin(Note(name, documents=len(documents), named=False))
    times = np.zeros(len(tokens), np.int64)
    for file, counts in old:
        times = np.maximum(times, find_given(tokens, file, counts))
    number = np.repeat(np.arange(len(tokens.documents) - 1), np.diff(tokens.documents))
    train = np.zeros(len(tokens), np.bool_)
    train[documents.start : documents.stop] = True
    note = Note(
        name,
        documents=len(np.unique(number[train])),
        left_out=len(np.unique(number[train & (times > 0)])),
        held_out=len(np.unique(number[~train & (times > 0)])),
    )
    return Begin(note, times=times if note.left_out else None)


def _read_given(folder: Path, facts: dict[str, Any], samples: int) -> list[Given]:
    record = facts["splits"].get("train")
    held = record["samples"] if record else 0
    if record is None or samples > held:
        found = f"{samples} of the train split of {folder}, which has {held}"
        raise UserError(f"earlier_samples: {found}; give what the run has trained on")
    packed = facts["packing"] != "none"
    blend = load_blend(folder, "train", record)
    counts: Sequence[int] = [samples] if blend is None else blend.taken(samples)
    given = []
    for place, (source, own) in enumerate(zip(facts["sources"], record["sources"], strict=True)):
        order = load_order(folder, f"train-{place}", packed=packed)
        rest = replace(order, shuffle=order.shuffle[counts[place] :])
        given.append(
            Given(
                (source["bin_hash"], source["idx_hash"]),
                range(*own["documents"]),
                own["first"] + counts[place],
                rest,
                own.get("lead", 0),
                folder / source["prefix"],
            )
        )
    left = (facts.get("earlier") or {}).get("left_out", [])
    prefixes = [prefix and folder / prefix for prefix in left]
    for number, past in enumerate(record["left_out"]):
        prefix = prefixes[number] if number < len(prefixes) else None
        given.append(_read_left_out(folder, f"train-left-{number}", past, prefix, packed=packed))
    return given


def _read_left_out(
    folder: Path, name: str, past: dict[str, Any], prefix: Path | None, *, packed: bool
) -> Given:
    """What `Given.save` wrote and returned."""
    hashes, documents = tuple(past["hashes"]), range(*past["documents"])
    order = load_order(folder, name, packed=packed)
    return Given(hashes, documents, past["first"], order, past.get("lead", 0), prefix)
