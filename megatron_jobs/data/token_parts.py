"""Text files to one token file, in parts that can be made apart and in any order.

A part is a folder that is whole or absent, so a run that was killed goes on with the parts that are
missing. Joined in order they are what one part would have been: tokens and rejected lines do not
depend on how the text was cut or who made which part.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import (
    TokenFileWriter,
    bin_path,
    idx_path,
    merge_token_files,
    write_token_file,
)
from megatron_jobs.runtime.files import file_hash, read_json, whole_file, whole_folder, write_json
from megatron_jobs.text.documents import Document, Rejected, read_documents
from megatron_jobs.text.encoder import Encoder
from megatron_jobs.text.rejects import HEADS, RAW, RejectWriter, write_rejects
from megatron_jobs.text.sources import Piece

TOKENS = "tokens"
FACTS = "part.json"
BATCH_DOCUMENTS = 256
BATCH_LETTERS = 1 << 20
Split = Callable[[str], list[str]]


@dataclass(frozen=True, kw_only=True)
class TokenRules:
    """What becomes of a text."""

    encoder: Encoder
    key: str
    """Of the text in a line's JSON object."""
    limit: int
    """Bytes; a longer line is put aside."""
    append_eod: bool
    sentences: Split | None = None
    """Cuts a document into the sequences of the token file; None for one sequence."""


@dataclass
class Counts:
    """What a part, or all of them, holds."""

    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    rejected: int = 0

    def add(self, other: "Counts") -> None:
        """Add up."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def make_part(
    folder: Path, pieces: Sequence[Piece], rules: TokenRules, report: Callable[[int], None]
) -> None:
    """Tokenize `pieces` into `folder`; `report` is told now and then the bytes of input done."""
    with whole_folder(folder) as part:
        with (
            write_token_file(part / TOKENS, vocab_size=rules.encoder.vocab_size) as tokens,
            (part / HEADS).open("w", encoding="utf-8") as heads,
            (part / RAW).open("wb") as raw,
        ):
            maker = _PartMaker(rules, tokens, RejectWriter(heads, raw))
            for done in maker.add_all(pieces):
                report(done)
        write_json(part / FACTS, maker.facts())


class _PartMaker:
    """Fills one part, batch by batch."""

    def __init__(self, rules: TokenRules, tokens: TokenFileWriter, rejects: RejectWriter) -> None:
        self.rules = rules
        self.tokens = tokens
        self.rejects = rejects
        self.counts = Counts()
        self.lines: list[int] = []

    def add_all(self, pieces: Sequence[Piece]) -> Iterator[int]:
        """Add all pieces; yields the bytes of input done, now and then."""
        done = 0
        for place, piece in enumerate(pieces):
            for read in self._add_piece(place, piece):
                yield done + min(read, piece.size)
            done += piece.size
            yield done

    def _add_piece(self, place: int, piece: Piece) -> Iterator[int]:
        batch: list[Document] = []
        letters = read = 0
        self.lines.append(0)
        for item in read_documents(piece, key=self.rules.key, limit=self.rules.limit):
            self.lines[place] += 1
            if isinstance(item, Document):
                batch.append(item)
                letters += len(item.text)
                read += len(item.raw)
            full = len(batch) == BATCH_DOCUMENTS or letters >= BATCH_LETTERS
            if full or isinstance(item, Rejected):  # what is rejected keeps its place in the order
                self._add_batch(place, batch)
                batch, letters = [], 0
                yield read
            if isinstance(item, Rejected):
                self._reject(place, item)
        self._add_batch(place, batch)

    def facts(self) -> dict[str, Any]:
        assert sum(self.lines) == self.counts.documents + self.counts.rejected, (
            f"{sum(self.lines)} lines are not {self.counts}"
        )
        reasons = dict(sorted(self.rejects.reasons.items()))
        return {"lines": self.lines, "counts": vars(self.counts), "reasons": reasons}

    def _add_batch(self, place: int, batch: list[Document]) -> None:
        split = self.rules.sentences
        texts = [split(document.text) if split else [document.text] for document in batch]
        encoded = iter(self.rules.encoder.encode([text for one in texts for text in one]))
        for document, sentences in zip(batch, texts, strict=True):
            sequences = [ids for ids in islice(encoded, len(sentences)) if ids]
            if sequences:
                self._add_document(document, sequences)
            else:
                self._reject(place, Rejected(document.number, "no token", [document.raw]))

    def _add_document(self, document: Document, sequences: list[list[int]]) -> None:
        eod = self.rules.encoder.eod
        if self.rules.append_eod:
            assert eod is not None, "checked when the encoder was loaded"
            sequences[-1].append(eod)
        ids = [token for sequence in sequences for token in sequence]
        self.tokens.add_document(ids, [len(sequence) for sequence in sequences])
        self.counts.documents += 1
        self.counts.tokens += len(ids)
        self.counts.text_bytes += len(document.text.encode("utf-8"))

    def _reject(self, place: int, rejected: Rejected) -> None:
        self.rejects.add(place, rejected)
        self.counts.rejected += 1


def join_rejects(
    parts: Sequence[Path], plan: Sequence[Sequence[Piece]], out: Path, *, examples: int = 3
) -> list[str]:
    """Write the rejected lines of all parts, in order, with their numbers in their files.

    Returns: the first few, as FILE:LINE: reason.
    """
    with whole_file(out) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        words = _write_parts(parts, plan, file)
        first = list(islice(words, examples))
        deque(words, maxlen=0)  # write the others too
    return first


def _write_parts(
    parts: Sequence[Path], plan: Sequence[Sequence[Piece]], out: IO[str]
) -> Iterator[str]:
    seen: Counter[Path] = Counter()
    for part, pieces in zip(parts, plan, strict=True):
        yield from _write_part(part, pieces, read_json(part / FACTS)["lines"], seen, out)


def _write_part(
    part: Path, pieces: Sequence[Piece], lines: list[int], seen: Counter[Path], out: IO[str]
) -> Iterator[str]:
    """Write a part's rejects; count its lines in `seen`."""
    before = []
    for piece, count in zip(pieces, lines, strict=True):
        before.append((piece.file.path, seen[piece.file.path]))
        seen[piece.file.path] += count
    yield from write_rejects(part, before, out)


def join_tokens(parts: Sequence[Path], folder: Path, encoder: Encoder) -> TokenFacts:
    """Join the parts into folder/tokens.{bin,idx,json}, byte for byte what one part had been."""
    prefix = folder / TOKENS
    merge_token_files([part / TOKENS for part in parts], prefix)
    counts = count_parts(parts)
    facts = TokenFacts(
        vocab_size=encoder.vocab_size,
        eod=encoder.eod,
        tokenizer_hash=encoder.hash,
        **vars(counts),
        bin_hash=file_hash(bin_path(prefix)),
        idx_hash=file_hash(idx_path(prefix)),
    )
    facts.write(prefix)
    return facts


def count_parts(parts: Sequence[Path]) -> Counts:
    """What all parts together hold."""
    total = Counts()
    for part in parts:
        total.add(Counts(**read_json(part / FACTS)["counts"]))
    return total


def count_reasons(parts: Sequence[Path]) -> dict[str, int]:
    """How many lines were put aside for each reason, most frequent first."""
    reasons: Counter[str] = Counter()
    for part in parts:
        reasons.update(read_json(part / FACTS)["reasons"])
    return dict(reasons.most_common())
