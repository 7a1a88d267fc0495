"""Parts of a token file, made by `token_parts`, to one that is what a single part had been."""

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from megatron_jobs._lines import name_documents
from megatron_jobs.data.document_names import (
    DocumentNames,
    NamesWriter,
    names_path,
    write_document_names,
)
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import idx_path, merge_token_files
from megatron_jobs.data.token_parts import FACTS, NAMELESS, TOKENS, Counts
from megatron_jobs.errors import MegatronJobsError
from megatron_jobs.runtime.files import file_hash, read_json, whole_file
from megatron_jobs.text.encoder import Encoder
from megatron_jobs.text.rejects import write_rejects
from megatron_jobs.text.sources import Piece

NAMED_AT_ONCE = 1 << 18
"""Documents."""
LOOK_SECONDS = 0.01
"""How often it is looked whether the next part is made."""


@contextlib.contextmanager
def merged_as_made(
    parts: Sequence[Path], is_made: Callable[[Path], bool], folder: Path
) -> Iterator[Callable[[], str]]:
    """While inside, a thread joins the tokens of `parts`, each when it is made, into folder/tokens.

    Gives a function that returns the SHA-256 of the .bin when all are joined. Whatever leaves it
    before that ends the thread.
    """
    over = threading.Event()

    def as_made() -> Iterator[Path]:
        for part in parts:
            while not is_made(part):
                if over.wait(LOOK_SECONDS):
                    raise MegatronJobsError(f"{part}: the job ended before it was made")
            yield part / TOKENS

    with ThreadPoolExecutor(1) as joiner:
        merged = joiner.submit(merge_token_files, as_made(), folder / TOKENS)
        try:
            yield merged.result
        finally:
            over.set()


def join_tokens(
    parts: Sequence[Path],
    plan: Sequence[Sequence[Piece]],
    folder: Path,
    encoder: Encoder,
    *,
    merged: Callable[[], str] | None = None,
) -> TokenFacts:
    """Join the parts into folder/tokens.{bin,idx,json}, and .names where they have them.

    Args:
        plan: the pieces of each part.
        merged: of `merged_as_made`, where that is making the .bin and .idx.
    """
    prefix = folder / TOKENS
    bin_hash = merged() if merged else merge_token_files((part / TOKENS for part in parts), prefix)
    named = names_path(parts[0] / TOKENS).exists()
    if named:
        join_names(parts, plan, prefix)
    facts = TokenFacts(
        vocab_size=encoder.vocab_size,
        eod=encoder.eod,
        tokenizer_hash=encoder.hash,
        **vars(count_parts(parts)),
        bin_hash=bin_hash,
        idx_hash=file_hash(idx_path(prefix)),
        names_hash=file_hash(names_path(prefix)) if named else None,
    )
    facts.write(prefix)
    return facts


def join_names(parts: Sequence[Path], plan: Sequence[Sequence[Piece]], prefix: Path) -> None:
    """Write PREFIX.names of all parts; documents without id are called FILE:LINE."""
    before: Counter[Path] = Counter()
    with write_document_names(prefix) as writer:
        for part, pieces in zip(parts, plan, strict=True):
            _add_names(part, pieces, before, writer)


def _add_names(
    part: Path, pieces: Sequence[Piece], before: Counter[Path], writer: NamesWriter
) -> None:
    """Add a part's names; count its lines in `before`."""
    names = DocumentNames.open(part / TOKENS)
    lines = np.fromfile(part / NAMELESS, np.int64)
    first = used = 0
    for piece, counts in zip(pieces, _facts(part)["pieces"], strict=True):
        before[piece.file.path] *= piece.start > 0  # a file may be given twice
        end = first + counts["documents"]
        for start in range(first, end, NAMED_AT_ONCE):
            offsets = names.offsets[start : min(start + NAMED_AT_ONCE, end) + 1]
            sizes = np.diff(offsets)
            nameless = int(np.count_nonzero(sizes == 0))
            numbers = lines[used : used + nameless] + before[piece.file.path]
            ids = names.letters[offsets[0] : offsets[-1]].tobytes()
            writer.add(*name_documents(ids, sizes, numbers, file=piece.file.name))
            used += nameless
        before[piece.file.path] += counts["lines"]
        first = end


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
        counts = _facts(part)["pieces"]
        yield from _write_part(part, pieces, [one["lines"] for one in counts], seen, out)


def _write_part(
    part: Path, pieces: Sequence[Piece], lines: list[int], seen: Counter[Path], out: IO[str]
) -> Iterator[str]:
    """Write a part's rejects; count its lines in `seen`."""
    before = []
    for piece, count in zip(pieces, lines, strict=True):
        seen[piece.file.path] *= piece.start > 0  # a file may be given twice
        before.append((piece.file.path, seen[piece.file.path]))
        seen[piece.file.path] += count
    yield from write_rejects(part, before, out)


def count_parts(parts: Sequence[Path]) -> Counts:
    """What all parts together hold."""
    total = Counts()
    for part in parts:
        total.add(Counts(**_facts(part)["counts"]))
    return total


def count_reasons(parts: Sequence[Path]) -> dict[str, int]:
    """How many lines were put aside for each reason, most frequent first."""
    reasons: Counter[str] = Counter()
    for part in parts:
        reasons.update(_facts(part)["reasons"])
    return dict(reasons.most_common())


def _facts(part: Path) -> dict[str, Any]:
    facts: dict[str, Any] = read_json(part / FACTS)
    return facts
