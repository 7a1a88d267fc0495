"""Addresses that nobody wants: by domain, by prefix, by words in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.errors import UserError
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Judge, Rule
from megatron_jobs.text.filters.word_lists import read_lines
from megatron_jobs.text.shards import Verdict

LONGEST, LONGEST_NAME = 4096, 253
"""Characters of an address, beyond which none of its beginnings is looked up, and of a host name in
the DNS."""
SIGNS = re.compile(r"[^a-z0-9]+")


class Urls(Rule):
    """Lists of domains, prefixes and words; a record without an address passes.

    The kinds of lists are RefinedWeb's, as in datatrove, which looks for words with capitals in
    the address in vain: here case does not count. Source: Penedo et al. 2023,
    arXiv:2306.01116.
    """

    rule: Literal["urls"] = "urls"
    domains: InputPath | None = None
    """Names, one a line; all below a name are meant too: `example.org` is `www.example.org`."""
    prefixes: InputPath | None = None
    """Beginnings of addresses, up to a / or their end; with or without https:// and www."""
    words: InputPath | None = None
    """Words; an address that has one between its signs is rejected."""
    parts: InputPath | None = None
    """Parts of words; an address that has one, signs left out, is rejected."""
    soft_words: InputPath | None = None
    """Words; an address with at least `soft_limit` of them is rejected."""
    soft_limit: int = 2
    """How many different soft words are too many."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        lists = ("domains", "prefixes", "words", "parts", "soft_words")
        if all(getattr(self, name) is None for name in lists):
            yield "rule", f"urls needs at least one of {', '.join(lists)}"
        if self.soft_limit < 1:
            yield "soft_limit", f"{self.soft_limit} must be at least 1"

    def prepare(self) -> Judge:
        """The judge."""
        lists = _Lists(
            frozenset(name.lower().rstrip(".") for name in _entries(self.domains)),
            frozenset(map(_plain, _entries(self.prefixes))),
            frozenset(_words(self.words)),
            frozenset(_words(self.soft_words)),
            re.compile("|".join(_words(self.parts)) or "(?!)"),
            self.soft_limit,
        )

        def judge(page: Page) -> Verdict | None:
            if not page.record.url:
                return None
            found = next(lists.hits(page.record.url), None)
            return found and Verdict(f"urls.{found[0]}", found[1], found[2])

        return judge


@dataclass(frozen=True)
class _Lists:
    domains: frozenset[str]
    prefixes: frozenset[str]
    words: frozenset[str]
    soft_words: frozenset[str]
    parts: re.Pattern[str]
    soft_limit: int

    def hits(self, url: str) -> Iterator[tuple[str, object, object]]:
        """(test, found, limit) of each list that the address is on."""
        for name in _names_above(url):
            if name in self.domains:
                yield "domain", name, "none"
        for prefix in _beginnings(_plain(url)):
            if prefix in self.prefixes:
                yield "prefix", prefix, "none"
        words = set(SIGNS.split(url.lower()))
        if hard := sorted(words & self.words):
            yield "word", hard[0], "none"
        if len(words & self.soft_words) >= self.soft_limit:
            yield "soft_words", sorted(words & self.soft_words), self.soft_limit - 1
        if part := self.parts.search(_folded(url)):
            yield "part", part[0], "none"


def _entries(path: Path | None) -> list[str]:
    return [] if path is None else read_lines(path)


def _words(path: Path | None) -> list[str]:
    """Entries as addresses can have them: with letters from a to z or digits."""
    entries = _entries(path)
    found = [word for word in map(_folded, entries) if word]
    if entries and not found:
        raise UserError(f"{path}: found no entry with a letter from a to z or a digit")
    return found


def _folded(text: str) -> str:
    return SIGNS.sub("", text.lower())


def _plain(url: str) -> str:
    """An address without its scheme, www. and what follows #."""
    rest = url.partition("#")[0]
    _, scheme, after = rest.partition("://")
    return (after if scheme else rest).removeprefix("www.").rstrip("/")


def _beginnings(plain: str) -> Iterator[str]:
    """The address, and each beginning of it that ends before a sign of its path."""
    yield plain
    for place in range(min(len(plain), LONGEST) - 1, 0, -1):
        if plain[place] in "/?&":
            yield plain[:place].rstrip("/")


def _names_above(url: str) -> Iterator[str]:
    """The host of an address, and all domains that it is in."""
    try:
        host = urlsplit(url if "://" in url else f"//{url}").hostname or ""
    except ValueError:  # such as brackets that are no IPv6 address
        return
    labels = host.rstrip(".").split(".") if len(host) <= LONGEST_NAME else []
    yield from (".".join(labels[place:]) for place in range(len(labels)))
