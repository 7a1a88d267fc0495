"""Text files to parts of a token file, which can be made apart and in any order.

A part is a folder that is whole or absent, so a run that was killed goes on with the parts that are
missing. `token_join` makes one token file of them: tokens, names and rejected lines do not depend
on how the text was cut or who made which part.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._lines import narrow
from megatron_jobs.data.document_names import NamesWriter, names_path, write_names_part
from megatron_jobs.data.token_file import (
    TokenFileWriter,
    bin_path,
    token_dtype,
    write_token_part,
)
from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import PARTIAL, read_json, remove
from megatron_jobs.text.batches import BETWEEN, Batch, cut_texts, read_batches
from megatron_jobs.text.bulk import BulkEncoder
from megatron_jobs.text.documents import Rejected
from megatron_jobs.text.encoder import Encoder
from megatron_jobs.text.members import CHUNK
from megatron_jobs.text.rejects import HEADS, RAW, RejectWriter
from megatron_jobs.text.sources import Piece

TOKENS = "tokens"
FACTS = "part.json"
NAMELESS = "nameless.lines"
"""int64, the lines in their pieces of the documents that have no id, in order."""
Split = Callable[[str], list[str]]


@dataclass(frozen=True, kw_only=True)
class TokenRules:
    """What becomes of a text."""

    encoder: Encoder
    bulk: BulkEncoder
    key: str
    """Of the text in a line's JSON object."""
    limit: int
    """Bytes; a longer line is put aside."""
    append_eod: bool
    names: bool = False
    """Whether the documents' names are kept."""
    sentences: Split | None = None
    """Cuts a document into the sequences of the token file; None for one sequence."""


@dataclass
class Counts:
    """What a part, or all of them, holds."""

    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    rejected: int = 0
    """Lines that were put aside."""
    damaged: int = 0
    """Of those, places in packed files that cannot be read."""

    def add(self, other: "Counts") -> None:
        """Add up."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass
class PieceCounts:
    """What one piece of a part holds."""

    lines: int = 0
    documents: int = 0


def make_part(
    folder: Path, pieces: Sequence[Piece], rules: TokenRules, report: Callable[[int], None]
) -> None:
    """Tokenize `pieces` into `folder`; `report` is told now and then the bytes of input done."""
    part = folder.with_name(folder.name + PARTIAL)
    remove(part)
    part.mkdir(parents=True)
    with ExitStack() as files:
        tokens = files.enter_context(
            write_token_part(part / TOKENS, vocab_size=rules.encoder.vocab_size)
        )
        heads = files.enter_context((part / HEADS).open("w", encoding="utf-8"))
        raw = files.enter_context((part / RAW).open("wb"))
        maker = _PartMaker(rules, tokens, RejectWriter(heads, raw))
        if rules.names:
            names = files.enter_context(write_names_part(names_path(part / TOKENS)))
            lines = files.enter_context((part / NAMELESS).open("wb"))
            maker.keep_names(names, lines)
        for done in maker.add_all(pieces):
            report(done)
    written = bin_path(part / TOKENS)
    known = {written.name: [written.stat().st_size, tokens.checksum]}  # it need not be read again
    facts = maker.facts() | {"checksums": _checksums(part, known)}
    (part / FACTS).write_text(json.dumps(facts), encoding="utf-8")
    os.rename(part, folder)


def part_is_whole(part: Path) -> bool:
    """Whether every file of a part is what its maker wrote.

    Parts are not synced, which would take longer than to make one: a node that lost power may
    have left anything in them.
    """
    try:
        noted = read_json(part / FACTS)["checksums"]
    except (OSError, DataError, KeyError, TypeError):
        return False
    return bool(noted == _checksums(part, {}))


def _checksums(part: Path, known: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """(bytes, CRC-32) of every file but FACTS; those of some are known."""
    found = dict(known)
    for path in sorted(part.iterdir()):
        if path.name == FACTS or path.name in known:
            continue
        size = code = 0
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                size, code = size + len(chunk), zlib.crc32(chunk, code)
        found[path.name] = [size, code]
    return found


class _PartMaker:
    """Fills one part, batch by batch."""

    def __init__(self, rules: TokenRules, tokens: TokenFileWriter, rejects: RejectWriter) -> None:
        self.rules = rules
        self.tokens = tokens
        self.rejects = rejects
        self.counts = Counts()
        self.pieces: list[PieceCounts] = []
        self.names: NamesWriter | None = None
        self.nameless: IO[bytes] | None = None

    def keep_names(self, names: NamesWriter, nameless: IO[bytes]) -> None:
        """Write what the documents are called too."""
        self.names, self.nameless = names, nameless

    def add_all(self, pieces: Sequence[Piece]) -> Iterator[int]:
        """Add all pieces; yields the bytes of input done, now and then."""
        done = 0
        for place, piece in enumerate(pieces):
            self.pieces.append(PieceCounts())
            read = 0
            for batch in read_batches(piece, key=self.rules.key, limit=self.rules.limit):
                self._add_batch(place, batch)
                read += batch.size
                yield done + min(read, piece.size)
            done += piece.size
            yield done

    def facts(self) -> dict[str, Any]:
        lines = sum(piece.lines for piece in self.pieces)
        assert lines == self.counts.documents + self.counts.rejected, (
            f"{lines} lines are not {self.counts}"
        )
        return {
            "pieces": [asdict(piece) for piece in self.pieces],
            "counts": asdict(self.counts),
            "reasons": dict(sorted(self.rejects.reasons.items())),
        }

    def _add_batch(self, place: int, batch: Batch) -> None:
        tokens, lengths, sequences = self._encode(batch)
        empty = np.flatnonzero(sequences == 0)
        rejected = [
            Rejected(int(batch.numbers[document]), "no token", [batch.raw(int(document))])
            for document in empty
        ]
        for item in sorted([*batch.rejected, *rejected], key=lambda item: item.number):
            self.rejects.add(place, item)
        kept = np.delete(np.arange(len(batch)), empty) if len(empty) else None
        self.tokens.add_batch(tokens, lengths, sequences if kept is None else sequences[kept])
        self._name(batch, empty)
        self.pieces[place].lines += batch.lines
        self.pieces[place].documents += len(batch) - len(empty)
        self.counts.add(
            Counts(
                documents=len(batch) - len(empty),
                tokens=tokens.size,
                text_bytes=int(batch.sizes.sum() - batch.sizes[empty].sum()),
                rejected=len(batch.rejected) + len(empty),
                damaged=sum(item.damaged for item in batch.rejected),
            )
        )

    def _encode(self, batch: Batch) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int32]]:
        """Tokens, their sequences' lengths, and sequences of each document."""
        rules, encoder = self.rules, self.rules.encoder
        texts, sizes = batch.texts, batch.sizes
        counts = np.ones(len(batch), np.int64)
        if rules.sentences:
            texts, sizes, counts = _split(batch, rules.sentences)
        assert not rules.append_eod or encoder.eod is not None, "checked when it was loaded"
        return narrow(
            rules.bulk.encode(texts, sizes),
            counts,
            separator=rules.bulk.separator,
            before=list(rules.bulk.before),
            after=list(rules.bulk.after),
            eod=-1 if encoder.eod is None or not rules.append_eod else encoder.eod,
            vocab=encoder.vocab_size,
            wide=token_dtype(encoder.vocab_size) != np.uint16,
        )

    def _name(self, batch: Batch, empty: NDArray[np.intp]) -> None:
        """Note the ids of a batch but for documents that are `empty`."""
        if self.names is None or self.nameless is None:
            return
        ids, sizes, numbers = batch.ids, batch.id_sizes, batch.numbers
        if len(empty):
            letters = np.repeat(np.isin(np.arange(len(batch)), empty), sizes)
            ids = np.frombuffer(ids, np.uint8)[~letters].tobytes()
            sizes, numbers = np.delete(sizes, empty), np.delete(numbers, empty)
        self.names.add(ids, sizes)
        self.nameless.write(numbers[sizes == 0].astype(np.int64).tobytes())


def _split(batch: Batch, sentences: Split) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64]]:
    """(texts, bytes of each, how many each document has) of a batch cut into sentences."""
    texts = [sentences(text.decode("utf-8")) for text in cut_texts(batch.texts, batch.sizes)]
    raws = [sentence.encode("utf-8") for one in texts for sentence in one]
    sizes = np.array([len(raw) for raw in raws], dtype=np.int64)
    return BETWEEN.join(raws), sizes, np.array([len(one) for one in texts], dtype=np.int64)
