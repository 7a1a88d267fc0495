"""Replace personal data and secrets in records by placeholders of their kind.

RUN/JOB/documents     the records, redacted
RUN/JOB/review.jsonl  a sample of each kind: what stood around it, and the value shown only partly
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import Field

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import documents
from megatron_jobs.stages.documents import DocumentSettings, gather_documents, run_documents

if TYPE_CHECKING:
    from megatron_jobs.text.redact_records import Redacting

OUTPUTS = (*documents.OUTPUTS, "review.jsonl")
RESOURCES = Resources(hours=2)
NOTES = "review"
"""Shards from which review.jsonl is made."""
KINDS = Literal[
    "private_key",
    "secret",
    "url_credentials",
    "email",
    "iban",
    "card",
    "national_id",
    "ip",
    "phone",
]
ALL_KINDS: tuple[KINDS, ...] = get_args(KINDS)
SHORTEST_KEY = 16


class Config(DocumentSettings):
    """What is replaced, and by what."""

    kinds: tuple[KINDS, ...] = ALL_KINDS
    """What is looked for: private_key and secret (keys and tokens of services, values assigned to
    names such as api_key), url_credentials (user:password in an address), email, iban, card,
    national_id (of 14 countries), ip (version 4 and 6), phone."""
    style: Literal["placeholder", "hash"] = "placeholder"
    """placeholder: <EMAIL>; hash: <EMAIL:1f0c9a2b>, equal for equal values, of a keyed hash."""
    hash_key: InputPath | None = None
    """A file with the key of the hash, 16 bytes or more; keep it apart from the data."""
    placeholders: dict[str, str] = Field(default_factory=dict)
    """By kind, instead of the kind in capitals between angle brackets."""
    private_ips: bool = False
    """Also replace addresses that are not routed: 192.168.1.1, fe80::1."""
    keep: tuple[str, ...] = ()
    """Regular expressions; values that one of them matches whole are left alone."""
    patterns: dict[str, str] = Field(default_factory=dict)
    """Further kinds by name: regular expressions over the text's UTF-8 bytes. A group called
    `value`, if there is one, is what is replaced."""
    names: str = ""
    """Also names of people (<NAME>): spacy:MODEL (such as spacy:en_core_web_sm; extra `ner`) or
    presidio:LANGUAGE; "" for no. Slow: some 40 kB/s on a core with that model, less with others."""
    metadata: bool = True
    """Redact the address and the strings of the metadata as well, such as a mail's subject. Ids are
    never changed: where they tell of people (a mail's Message-ID), give records others before."""
    review: int = 20
    """Examples of each kind for review.jsonl, by chance, the same ones for any number of tasks."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        yield from super().problems()
        if not self.kinds and not self.patterns and not self.names:
            yield "kinds", "found none, and neither patterns nor names"
        if self.style == "hash" and self.hash_key is None:
            yield "hash_key", "must be set for style hash; without a key a hash can be guessed"
        if self.review < 0:
            yield "review", f"{self.review} is negative; 0 for no examples"
        for name, pattern in self.patterns.items():
            yield from _bad_pattern(f"patterns.{name}", pattern)
        for place, pattern in enumerate(self.keep):
            yield from _bad_pattern(f"keep.{place}", pattern)
        known = {*self.kinds, *self.patterns, "name"}
        for name in self.placeholders:
            if name not in known:
                yield f"placeholders.{name}", f"is no kind that is looked for: {sorted(known)}"
        yield from _bad_names(self.names)


def describe(config: Config, resources: Resources) -> list[tuple[str, str]]:
    """What is replaced."""
    kinds = [*config.kinds, *config.patterns, *(["name"] if config.names else [])]
    return [("redacts", ", ".join(kinds))]


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Redact this rank's share of the records."""
    numbers = run_documents(config, rank, folder, lambda: _redacting(config), notes=NOTES)
    if rank.leads:
        _review(config, folder)
    return numbers


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    """Join what the tasks have redacted, and their samples."""
    numbers = gather_documents(config, folder, tasks, notes=NOTES)
    _review(config, folder)
    return numbers


def _review(config: Config, folder: Path) -> None:
    from megatron_jobs.text.redact_records import write_review

    write_review(folder / NOTES, folder / "review.jsonl", sample=config.review)


def _redacting(config: Config) -> "Redacting":
    from megatron_jobs.errors import UserError
    from megatron_jobs.text.redact import Redactor, RedactRules
    from megatron_jobs.text.redact_names import load_names
    from megatron_jobs.text.redact_records import Redacting

    key = config.hash_key.read_bytes() if config.hash_key else b""
    if config.hash_key and len(key) < SHORTEST_KEY:
        found = f"{config.hash_key} has {len(key)} bytes, at least {SHORTEST_KEY}"
        raise UserError(f"hash_key: found {found}; head -c 32 /dev/urandom makes one")
    rules = RedactRules(
        kinds=config.kinds,
        style=config.style,
        key=key,
        placeholders=config.placeholders,
        private_ips=config.private_ips,
        keep=config.keep,
        patterns=config.patterns,
    )
    find_names = load_names(config.names) if config.names else None
    return Redacting(Redactor(rules, find_names), sample=config.review, metadata=config.metadata)


def _bad_pattern(setting: str, pattern: str) -> Iterator[Problem]:
    try:
        re.compile(pattern.encode())
    except re.error as error:
        yield setting, f"{pattern!r} is no regular expression: {error}"


def _bad_names(names: str) -> Iterator[Problem]:
    if not names:
        return
    from megatron_jobs.text.redact_names import check_names

    if wrong := check_names(names):
        yield "names", wrong
