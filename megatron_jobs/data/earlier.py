"""What an earlier index gave, and how its sources go on when a run changes its mix.

An order says which sample of a source is the n-th. Of a source that stays, the order of the earlier
index goes on behind the samples that it gave; a source is the same when its token file is, byte for
byte. Orders of sources that are left out are kept, so that they go on when they come back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._data import Shuffler
from megatron_jobs.data.packing import PackedOrder, shuffled_epochs
from megatron_jobs.data.sample_index import index_identity, load_blend, load_order, read_facts
from megatron_jobs.data.source_order import SourceOrder, extend_order
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import UserError

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
        more = shuffled_epochs(shuffler, len(self.order.first) - 1, missing)
        shuffle: NDArray[Any] = np.concatenate([self.order.shuffle, more])
        return replace(self.order, shuffle=shuffle)

    def epochs(self, order: SourceOrder | PackedOrder) -> int:
        """How often `order`, of `go_on`, goes through the documents, what was given included."""
        if isinstance(order, SourceOrder):
            return len(order.documents) // len(self.documents)
        return (self.first + len(order)) // (len(order.first) - 1)

    def save(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the order under `name`; returns the rest, for a JSON file."""
        self.order.save(folder, name)
        bounds = [self.documents.start, self.documents.stop]
        return {"hashes": list(self.hashes), "documents": bounds, "first": self.first}

    @classmethod
    def load(cls, folder: Path, name: str, rest: dict[str, Any], *, packed: bool) -> Self:
        """What `save` wrote and returned."""
        bin_hash, idx_hash = rest["hashes"]
        order = load_order(folder, name, packed=packed)
        return cls((bin_hash, idx_hash), range(*rest["documents"]), rest["first"], order)


class Earlier:
    """The sources of an earlier index, behind the first `samples` of its train split.

    Args:
        folder: the earlier index; its token files are not looked at.
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
        self._found: set[tuple[str, str]] = set()

    def of(self, prefix: Path, hashes: tuple[str, str], documents: range) -> Given | None:
        """What was given of a token file; None when it is new."""
        same = [given for given in self.all if given.hashes == hashes]
        if not same:
            return None
        self._found.add(hashes)
        given = max(same, key=lambda one: one.first)  # named twice: behind what both have given
        if given.documents != documents:
            found = f"train documents {documents.start} to {documents.stop} of {prefix}"
            was = f"{self.folder} has {given.documents.start} to {given.documents.stop}"
            raise UserError(f"earlier: {found}, {was}; its samples go on only with the same")
        return given

    def left_out(self) -> list[Given]:
        """What `of` was not asked for."""
        return [given for given in self.all if given.hashes not in self._found]


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
        hashes = (source["bin_hash"], source["idx_hash"])
        given.append(Given(hashes, range(*own["documents"]), own["first"] + counts[place], rest))
    for number, past in enumerate(record["left_out"]):
        given.append(Given.load(folder, f"train-left-{number}", past, packed=packed))
    return given
