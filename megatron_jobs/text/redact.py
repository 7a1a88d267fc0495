"""Personal data and secrets in a text, found and replaced.

A fast look in C++ finds where any may stand; the exact patterns (redact_kinds) and checks are tried
only there. All places are in the UTF-8 bytes of the text.
"""

import hashlib
import hmac
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from megatron_jobs._personal import find_traces
from megatron_jobs.text.redact_kinds import ORDER, Kind, kinds_of

NAME = "name"
PLACEHOLDERS = {
    "private_key": "<PRIVATE_KEY>",
    "secret": "<SECRET>",
    "url_credentials": "<CREDENTIALS>",
    "email": "<EMAIL>",
    "iban": "<IBAN>",
    "card": "<CARD>",
    "national_id": "<NATIONAL_ID>",
    "ip": "<IP>",
    "phone": "<PHONE>",
    NAME: "<NAME>",
}
"""What a kind is replaced by, unless told otherwise."""
PSEUDONYM_DIGITS = 8
"""Hexadecimal, of a value's keyed hash."""
RANKS = {name: rank for rank, name in enumerate((*ORDER, NAME))}
"""Of kinds that overlap the lowest is taken; the user's own patterns come first."""
FindNames = Callable[[str], Iterable[tuple[int, int]]]
"""(begin, end) of names in the characters of a text."""


@dataclass(frozen=True)
class Found:
    """Something in a text that is replaced."""

    kind: str
    begin: int
    end: int
    """Bytes of the text."""
    value: bytes
    replacement: bytes = b""


@dataclass(frozen=True)
class RedactRules:
    """What is looked for, and what stands in its place."""

    kinds: tuple[str, ...] = ORDER
    style: Literal["placeholder", "hash"] = "placeholder"
    """`hash` adds a keyed hash of the value: equal values stay equal, <EMAIL:1f0c9a2b>."""
    key: bytes = b""
    """Of the hash."""
    placeholders: Mapping[str, str] = field(default_factory=dict)
    """By kind, instead of PLACEHOLDERS."""
    private_ips: bool = False
    """Also addresses of private networks."""
    keep: tuple[str, ...] = ()
    """Regular expressions; a value that one of them matches whole stays."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """Further kinds by name: regular expressions; a group `value`, if any, is what is replaced."""


class Redactor:
    """Finds and replaces.

    Args:
        find_names: also finds names of people, when given.
    """

    def __init__(self, rules: RedactRules, find_names: FindNames | None = None) -> None:
        self.rules, self.find_names = rules, find_names
        self.kinds = kinds_of(rules.kinds, private_ips=rules.private_ips)
        self.keep = [re.compile(pattern.encode()) for pattern in rules.keep]
        self.patterns = {name: re.compile(p.encode()) for name, p in rules.patterns.items()}
        self.by_traces: dict[int, list[Kind]] = {}

    def find(self, text: str) -> list[Found]:
        """What is to be replaced, in the order of the text; nothing overlaps."""
        traces = find_traces(text)
        if not traces and not self.patterns and self.find_names is None:
            return []
        data = text.encode()
        found = [*self._of_patterns(data), *self._of_traces(data, traces)]
        if self.find_names is not None:
            found += _named(text, data, self.find_names)
        return _without_overlaps(one for one in found if not self._is_kept(one.value))

    def redact(self, text: str) -> tuple[str, list[Found]]:
        """The text with its replacements, and what they replace."""
        found = self.find(text)
        if not found:
            return text, found
        data = text.encode()
        found = [self._replaced(one) for one in found]
        parts, at = [], 0
        for one in found:
            parts += [data[at : one.begin], one.replacement]
            at = one.end
        return b"".join([*parts, data[at:]]).decode(), found

    def _of_patterns(self, data: bytes) -> Iterator[Found]:
        for name, pattern in self.patterns.items():
            for match in pattern.finditer(data):
                begin, end = _span(match)
                if begin < end:
                    yield Found(name, begin, end, data[begin:end])

    def _of_traces(self, data: bytes, traces: list[tuple[int, int, int]]) -> Iterator[Found]:
        for kinds, begin, end in _joined(traces):
            for kind in self._tried_at(kinds):
                yield from _matches(kind, data, begin, end)

    def _tried_at(self, traces: int) -> list[Kind]:
        if traces not in self.by_traces:
            self.by_traces[traces] = [kind for kind in self.kinds if kind.traces & traces]
        return self.by_traces[traces]

    def _is_kept(self, value: bytes) -> bool:
        return any(pattern.fullmatch(value) for pattern in self.keep)

    def _replaced(self, one: Found) -> Found:
        default = PLACEHOLDERS.get(one.kind, f"<{one.kind.upper()}>")
        placeholder = self.rules.placeholders.get(one.kind, default)
        if self.rules.style == "hash":
            placeholder = with_hash(placeholder, pseudonym(self.rules.key, one.kind, one.value))
        return Found(one.kind, one.begin, one.end, one.value, placeholder.encode())


def _matches(kind: Kind, data: bytes, begin: int, end: int) -> Iterator[Found]:
    """What a pattern and its check take of a part of the text."""
    if kind.marks and not any(data.find(mark, begin, end) >= 0 for mark in kind.marks):
        return
    for match in kind.pattern.finditer(data, begin, end):
        first, last = _span(match)
        value = data[first:last]
        if size := kind.end(value):
            yield Found(kind.name, first, first + size, value[:size])


def pseudonym(key: bytes, kind: str, value: bytes) -> str:
    """A keyed hash of a value; capitals, spaces and dashes make no difference."""
    folded = re.sub(rb"[\s().-]", b"", value.lower())
    digest = hmac.new(key, kind.encode() + b"\0" + folded, hashlib.sha256).hexdigest()
    return digest[:PSEUDONYM_DIGITS]


def with_hash(placeholder: str, digits: str) -> str:
    """<EMAIL> and 1f0c9a2b are <EMAIL:1f0c9a2b>; without a bracket the hash comes last."""
    closed = placeholder[-1:] in ">]})"
    return f"{placeholder[:-1]}:{digits}{placeholder[-1]}" if closed else f"{placeholder}:{digits}"


def _span(match: re.Match[bytes]) -> tuple[int, int]:
    return match.span("value") if "value" in match.re.groupindex else match.span()


def _joined(traces: list[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Traces of equal kinds that overlap are one, so that no word is looked at twice."""
    last: dict[int, list[int]] = {}
    for kinds, begin, end in traces:
        held = last.get(kinds)
        if held and begin <= held[1]:
            held[1] = max(held[1], end)
            continue
        if held:
            yield kinds, held[0], held[1]
        last[kinds] = [begin, end]
    for kinds, (begin, end) in last.items():
        yield kinds, begin, end


def _without_overlaps(found: Iterable[Found]) -> list[Found]:
    """Of those that overlap the surer kind stays, then the earlier, then the longer."""
    taken: list[Found] = []
    ends: list[int] = []
    for one in sorted(found, key=lambda f: (RANKS.get(f.kind, -1), f.begin, -f.end)):
        place = bisect_right(ends, one.begin)
        if place == len(taken) or one.end <= taken[place].begin:
            taken.insert(place, one)
            ends.insert(place, one.end)
    return taken


def _named(text: str, data: bytes, find_names: FindNames) -> Iterator[Found]:
    """Names, whose places are in characters, as places in bytes."""
    at = place = 0
    for begin, end in sorted(find_names(text)):
        if begin < at:
            continue
        place += len(text[at:begin].encode())
        size = len(text[begin:end].encode())
        yield Found(NAME, place, place + size, data[place : place + size])
        at, place = end, place + size
