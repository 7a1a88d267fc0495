"""The samples of train, valid and test, in order: built once, read by every rank.

A folder with index.json, which says all about it, and .npy files that are memory mapped:

    SPLIT-I-documents.npy, SPLIT-I-starts.npy, SPLIT-I-shuffle.npy    the order of source I;
        with packing, SPLIT-I-documents, -offsets, -lengths, -first and -shuffle.npy
    SPLIT-counts.npy    for a blend: samples of each source before every so many;
        with phases SPLIT-phase-P-counts.npy
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.data.blend import Blend
from megatron_jobs.data.packing import PackedOrder
from megatron_jobs.data.phases import PhasedBlend
from megatron_jobs.data.source_order import SourceOrder
from megatron_jobs.data.splits import Split
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import read_json

NAME = "index.json"
VERSION = 2
DECIDES = ("seq_len", "seed", "split", "packing", "curriculum", "tokenizer_hash")
"""What of an index decides on its train samples, beside their sources and the blend."""


@dataclass(frozen=True, eq=False)
class SplitSamples:
    """The samples of one split; `[i]` are the seq_len + 1 tokens of sample i."""

    seq_len: int
    tokens: list[TokenFile]
    orders: Sequence[SourceOrder | PackedOrder]
    blend: Blend | PhasedBlend | None
    """Which source each sample is of; None for a single one."""

    def __len__(self) -> int:
        """Samples."""
        if self.blend is not None:
            return len(self.blend)
        return len(self.orders[0]) if self.orders else 0

    def __getitem__(self, sample: int) -> NDArray[np.int64]:
        """Tokens [seq_len + 1] of a sample, int64."""
        place, sample = self.place(sample)
        return self.orders[place].read(self.tokens[place], sample, self.seq_len)

    @property
    def packed(self) -> bool:
        """Whether samples are made of pieces, padded at the end."""
        return any(isinstance(order, PackedOrder) for order in self.orders)

    def pieces(self, sample: int) -> NDArray[np.int32]:
        """Of a packed sample, which piece each token is of: [seq_len + 1]; -1 for padding."""
        place, sample = self.place(sample)
        order = self.orders[place]
        assert isinstance(order, PackedOrder), f"sample {sample} is not packed"
        return order.numbers(sample, self.seq_len)

    def find(self, source: int, numbers: Sequence[int]) -> list[int]:
        """The samples that are those of a source; those that no sample is are left out."""
        if self.blend is not None:
            return self.blend.find(source, numbers)
        return [number for number in numbers if number < len(self)]

    def place(self, sample: int) -> tuple[int, int]:
        """(source, which of its samples) of a sample."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        return (0, sample) if self.blend is None else self.blend[sample]


@dataclass(frozen=True, eq=False)
class SampleIndex:
    """An index on disk, open for reading."""

    folder: Path
    facts: dict[str, Any]
    """All of index.json."""
    tokens: list[TokenFile]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read index.json and map the token files.

        Raises: DataError when the documents or tokens of a file are not as many as the index was
            built of. Bytes are not compared: index.json holds their hashes (bin_hash, idx_hash).
        """
        path, facts = folder / NAME, read_facts(folder)
        if not isinstance(facts.get("vocab_size"), int):
            found = facts.get("vocab_size")
            raise DataError(f"{path}: vocab_size: found {found}, must be a number; build it again")
        tokens = []
        for source in facts["sources"]:
            file = TokenFile.open(folder / source["prefix"])
            size = (len(file), len(file.ids))  # the .bin may hold more than the .idx tells of
            wanted = (source["documents"], source.get("ids", source["tokens"]))
            if size != wanted:
                found = f"{size[0]} documents and {size[1]} tokens"
                built = f"the index was built of {wanted[0]} and {wanted[1]}; build it again"
                raise DataError(f"{file.prefix}: {found}, {built}")
            tokens.append(file)
        return cls(folder, facts, tokens)

    @property
    def seq_len(self) -> int:
        """Tokens that a sample trains on; it holds one more."""
        return int(self.facts["seq_len"])

    @property
    def vocab_size(self) -> int:
        """Token ids are below it: the tokenizer's size, or of bare files the largest id + 1."""
        return int(self.facts["vocab_size"])

    @property
    def packed(self) -> bool:
        """Whether samples are made of pieces, padded at the end."""
        return bool(self.facts.get("packing", "none") != "none")

    @property
    def eod(self) -> int | None:
        """The id that ends a document; None when there is none."""
        eod: int | None = self.facts["eod"]
        return eod

    @property
    def tokenizer_hash(self) -> str | None:
        """SHA-256 of the tokenizer.json that made the tokens; None when nobody said."""
        found: str | None = self.facts["tokenizer_hash"]
        return found

    def samples(self, name: Split) -> int:
        """How many samples train, valid or test has, without opening it."""
        record = self.facts["splits"].get(name)
        return int(record["samples"]) if record else 0

    def split(self, name: Split) -> SplitSamples:
        """The samples of train, valid or test; none where the index was built without.

        Opens the arrays of all its sources.
        """
        record = self.facts["splits"].get(name)
        if record is None:
            return SplitSamples(self.seq_len, [], [], None)
        names = [f"{name}-{place}" for place in range(len(self.tokens))]
        orders = [load_order(self.folder, own, packed=self.packed) for own in names]
        blend = load_blend(self.folder, name, record)
        return SplitSamples(self.seq_len, self.tokens, orders, blend)


def read_facts(folder: Path) -> dict[str, Any]:
    """index.json of an index; DataError when there is none, or one of another version."""
    path = folder / NAME
    if not path.is_file():
        raise DataError(f"{path}: no such file; the index stage writes it")
    facts: dict[str, Any] = read_json(path)
    version = facts.get("version")
    if version != VERSION:
        found = f"found {version}, only {VERSION} can be read"
        raise DataError(f"{path}: version: {found}; build it again")
    return facts


def index_identity(facts: dict[str, Any]) -> str:
    """SHA-256 of what decides which train samples an index gives, wherever its files are.

    Args:
        facts: of `read_facts`.
    """
    own = [facts.get(name) for name in DECIDES]
    sources = [[source["bin_hash"], source["idx_hash"]] for source in facts["sources"]]
    before = facts.get("earlier") or {}
    earlier = [before.get("identity"), before.get("samples")]
    text = json.dumps([own, sources, facts["splits"].get("train"), earlier], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def path_from(folder: Path, prefix: Path) -> str:
    """`prefix` as an index in `folder` notes it; `folder / NOTED` is the file again.

    Relative to the index where both lie in one run folder: the run can be moved then.
    """
    run = folder.absolute().parent.parent
    inside = prefix.absolute().is_relative_to(run)
    return os.path.relpath(prefix.absolute(), folder.absolute()) if inside else str(prefix)


def load_order(folder: Path, name: str, *, packed: bool) -> SourceOrder | PackedOrder:
    """The order of a source that was saved under `name`."""
    return PackedOrder.load(folder, name) if packed else SourceOrder.load(folder, name)


def load_blend(folder: Path, name: Split, record: dict[str, Any]) -> Blend | PhasedBlend | None:
    """The blend of a split, of which index.json says `record`; None for a single source."""
    rule = record["blend"]
    if rule is None:
        return None
    form = PhasedBlend if "phases" in rule else Blend
    return form.load(folder, name, rule)
