"""What is known of a token file beside its tokens: PREFIX.json."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from megatron_jobs.data.document_names import names_path
from megatron_jobs.data.token_file import TokenFile, bin_path, idx_path
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import file_hash, read_json, write_json

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TokenFacts:
    """Where the tokens came from, and hashes that tell whether they are the same as others."""

    vocab_size: int
    """Ids are below it."""
    eod: int | None = None
    """The id that ends a document; None when there is none."""
    tokenizer_hash: str | None = None
    """Of the tokenizer's tokenizer.json."""
    documents: int
    tokens: int
    text_bytes: int | None = None
    """UTF-8 bytes of the documents."""
    rejected: int | None = None
    """Lines that were put aside."""
    damaged: int | None = None
    """Packed files that could be read only up to a damage; each is one rejected line too."""
    bin_hash: str
    """SHA-256 of PREFIX.bin."""
    idx_hash: str
    """SHA-256 of PREFIX.idx."""
    names_hash: str | None = None
    """SHA-256 of PREFIX.names; None when the documents have no names."""

    def write(self, prefix: Path) -> None:
        """Leave PREFIX.json."""
        write_json(facts_path(prefix), {"version": VERSION, **asdict(self)})

    @classmethod
    def read(cls, prefix: Path) -> Self:
        """What PREFIX.json says; raises DataError when it is not of this form."""
        path = facts_path(prefix)
        try:
            values = read_json(path)
            version = values.pop("version")
            if version == VERSION and values.get("vocab_size") is None:
                raise DataError(f"{path}: vocab_size: missing; without it, the ids are looked at")
            if version == VERSION:
                return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path}: not the facts of a token file: {error!r}") from error
        raise DataError(f"{path}: version: found {version}, only {VERSION} can be read")

    @classmethod
    def of_bare_file(cls, prefix: Path, *, documents: int, tokens: int) -> Self:
        """Facts of a token file that came without any: its ids, size and hashes."""
        return cls(
            vocab_size=TokenFile.open(prefix).least_vocab(),
            documents=documents,
            tokens=tokens,
            bin_hash=file_hash(bin_path(prefix)),
            idx_hash=file_hash(idx_path(prefix)),
        )


def shared_tokenizer(prefixes: Sequence[Path]) -> TokenFacts:
    """Facts of the first token file; UserError where another was made by another tokenizer."""
    first = TokenFacts.read(prefixes[0])
    for prefix in prefixes[1:]:
        facts = TokenFacts.read(prefix)
        for name in ("tokenizer_hash", "vocab_size", "eod"):
            found, expected = getattr(facts, name), getattr(first, name)
            if found != expected:
                other = (
                    f"{facts_path(prefixes[0])} says {expected}; tokenize all with one tokenizer"
                )
                raise UserError(f"{facts_path(prefix)}: {name}: found {found}, {other}")
    return first


def join_facts(prefixes: Sequence[Path], prefix: Path) -> None:
    """Write the facts of token files of one tokenizer that were joined into one, counts added up.

    Raises: UserError as `shared_tokenizer`.
    """
    first = shared_tokenizer(prefixes)
    every = [TokenFacts.read(one) for one in prefixes]
    counts = ("documents", "tokens", "text_bytes", "rejected", "damaged")
    sums: dict[str, Any] = {
        name: _sum([getattr(facts, name) for facts in every]) for name in counts
    }
    hashes: dict[str, Any] = {
        "bin_hash": file_hash(bin_path(prefix)),
        "idx_hash": file_hash(idx_path(prefix)),
        "names_hash": file_hash(names_path(prefix)) if names_path(prefix).exists() else None,
    }
    replace(first, **sums, **hashes).write(prefix)


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def facts_path(prefix: Path) -> Path:
    """The file of the facts."""
    return prefix.with_name(prefix.name + ".json")
