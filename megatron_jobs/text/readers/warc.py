"""Records of a web archive: WARC and WET; plain, gz or zst, one member a record or not.

    response, resource   a record with a payload, to be made text by `extract`; what is known of it
                         stands in metadata: content_type, charset, status, truncated
    conversion           a record with a text, as WET files hold it
    all others           skipped, counted by type

An archive packed as .gz can be cut: a piece holds what lies from the first member in it that begins
a record to the first such behind it. One whose records are not packed one by one is read whole with
its first piece.

A place is FILE@OFFSET, the offset of the member, in a plain file of the record; several records of
one member are FILE@OFFSET+BYTES of what is unpacked. A record whose length is wrong is quarantined,
and reading goes on at the next line that begins one. So it does in a record over the limit, which
is never held: its length is believed only until another record begins behind a blank line.

Source: ISO 28500:2017 (WARC 1.1), sections 4 to 6; lines may end in LF alone.
"""

import re
from collections.abc import Iterator
from typing import IO

from megatron_jobs.text.http import Answer, content_type, parse_answer, parse_headers
from megatron_jobs.text.members import PACKED, Chunk, Gap, unpack, unpack_part
from megatron_jobs.text.readers import Item, Piece, ReadRules
from megatron_jobs.text.readers.tape import Tape
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import HEAD, Quarantined, Skipped

MOST_HEADER = 1 << 16
"""Bytes of a record's header."""
START = re.compile(rb"(?<=\n)WARC/[01]\.\d+\r?\n")
"""Where a record begins, behind a line end."""
START_INSIDE = re.compile(rb"(?<=\n)\r?\nWARC/[01]\.\d{1,9}\r?\n")
"""Where a record begins behind a blank line."""
BLANK = re.compile(rb"\r?\n\r?\n")
LINE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\s*:|[ \t]")
DOCUMENTS = ("response", "resource", "conversion")
NO_PAGES = ("dns:", "whois:", "filedesc:", "metadata:")
"""Addresses under which some crawlers keep their notes as responses."""


class _NoRecord(Exception):
    """A few words: why the bytes here are no record."""


def read(piece: Piece, rules: ReadRules) -> Iterator[Item]:
    """All records of the piece; see the module."""
    packed = piece.path.name.lower().endswith(PACKED)
    with piece.open() as file:
        chunks = _chunks(file, piece)
        first = next(chunks, None)
        while first is not None:
            segment = _Segment(first, chunks)
            tape = Tape(iter(segment), None if packed else piece.size)
            yield from _records(tape, _Places(piece.name, first.at, packed), rules)
            first = segment.next_first


def _chunks(file: IO[bytes], piece: Piece) -> Iterator[Chunk | Gap]:
    if piece.path.name.lower().endswith(".gz"):
        return unpack_part(file, piece.start, piece.end, b"WARC/")
    return unpack(file, piece.path.name)


class _Segment:
    """What is read on its own: it ends before a member that begins a record, or with a gap."""

    def __init__(self, first: Chunk | Gap, chunks: Iterator[Chunk | Gap]) -> None:
        self.first, self.chunks = first, chunks
        self.next_first: Chunk | Gap | None = None
        """What the next segment begins with; known when this one was read to its end."""

    def __iter__(self) -> Iterator[Chunk | Gap]:
        chunk: Chunk | Gap | None = self.first
        while isinstance(chunk, Chunk):
            yield chunk
            chunk = next(self.chunks, None)
            if isinstance(chunk, Chunk) and chunk.first and chunk.data.startswith(b"WARC/"):
                self.next_first = chunk
                return
        if chunk is not None:
            self.next_first = next(self.chunks, None)
            yield chunk


class _Places:
    """Names of places in a segment."""

    def __init__(self, name: str, start: int, packed: bool) -> None:
        self.name, self.start, self.packed = name, start, packed

    def name_of(self, at: int) -> str:
        if not self.packed:
            return f"{self.name}@{self.start + at}"
        return f"{self.name}@{self.start}" + (f"+{at}" if at else "")


def _records(tape: Tape, places: _Places, rules: ReadRules) -> Iterator[Item]:
    told = False
    while True:
        tape.skip(b"\r\n")
        if not tape.need(1):
            break
        begin, place = tape.at, places.name_of(tape.at)
        try:
            yield _record(tape, place, rules)
        except _NoRecord as reason:
            head = tape.peek(HEAD)
            tape.move(1)
            tape.seek(START)
            why, told = str(reason), False
            if not tape.need(1):
                why, told = _end_of(tape, why, places.packed), True
            yield Quarantined(place, why, tape.at - begin, head)
    if tape.gap and not told:
        yield Quarantined(f"{places.name}@{tape.gap.at}", tape.gap.reason, tape.gap.size)
    tape.drain()


def _end_of(tape: Tape, why: str, packed: bool) -> str:
    """Why the bytes end, where that is to blame for what is no record."""
    if tape.gap:
        return tape.gap.reason
    return why if packed or why != "wrong length" else "cut short"


def _record(tape: Tape, place: str, rules: ReadRules) -> Item:
    """The record at the tape's place, which moves behind it; or stays, with _NoRecord."""
    headers, size = _header(tape)
    if not re.fullmatch("[0-9]{1,18}", headers.get("content-length", "")):
        raise _NoRecord("no length")
    length = int(headers["content-length"])
    kind = headers.get("warc-type", "").lower()
    if length > rules.limit and tape.may_have(size + length):
        return _too_long(tape, size + length, place, kind in DOCUMENTS)
    if not (
        tape.may_have(size + length) and tape.need(size + length) and _ends_at(tape, size + length)
    ):
        raise _NoRecord("wrong length")
    url = headers.get("warc-target-uri", "").strip("<>")
    if kind not in DOCUMENTS or url.startswith(NO_PAGES):
        tape.move(size + length)
        return Skipped(kind if kind not in DOCUMENTS and kind.isalpha() else "other")
    block = tape.peek(size + length)[size:]
    tape.move(size + length)
    return _document(headers, block, place, rules)


def _header(tape: Tape) -> tuple[dict[str, str], int]:
    """(headers, bytes to the end of the blank line)."""
    if not tape.starts(b"WARC/"):
        raise _NoRecord("no WARC record")
    end = tape.find(BLANK, MOST_HEADER)
    if end < 0:
        raise _NoRecord("header without end")
    lines = tape.peek(end).decode("utf-8", "replace").replace("\r\n", "\n").rstrip("\n").split("\n")
    if not all(LINE.match(line) for line in lines[1:]):
        raise _NoRecord("header without end")
    return parse_headers(lines[1:]), end


def _ends_at(tape: Tape, size: int) -> bool:
    """Whether nothing, or another record, comes `size` bytes on, behind blank lines."""
    following = tape.following(size, b"\r\n", 5)
    gap = tape.gap
    if not following and gap and gap.at == tape.member:
        return gap.reason != "damaged"  # else its checksum may be what is wrong
    return b"WARC/".startswith(following)


def _too_long(tape: Tape, size: int, place: str, wanted: bool) -> Item:
    """Pass a record without holding it."""
    head = tape.peek(HEAD)
    passed = tape.pass_by(size, START_INSIDE)
    if passed < size:
        reason = tape.gap.reason if tape.gap else "wrong length"
        return Quarantined(place, reason, passed, head)
    return Quarantined(place, "too long", size, head) if wanted else Skipped("other")


def _document(headers: dict[str, str], block: bytes, place: str, rules: ReadRules) -> Item:
    kind, charset = content_type(headers.get("content-type", ""))
    record = Record(
        id=headers.get("warc-record-id", "").strip("<>") or place,
        text="",
        url=headers.get("warc-target-uri", "").strip("<>"),
        date=headers.get("warc-date", ""),
    )
    answer = Answer(body=block)
    if kind == "application/http":
        found = parse_answer(block, rules.limit)
        if found is None:
            return Quarantined(place, "HTTP header without end", len(block), block[:HEAD])
        answer = found
        kind, charset = content_type(answer.headers.get("content-type", ""))
        record.metadata["status"] = answer.status
    elif headers["warc-type"].lower() == "conversion":
        return _converted(record, headers, block, place)
    facts = {"content_type": kind, "charset": charset, "truncated": _truncated(headers, answer)}
    detected = headers.get("warc-identified-payload-type", "")
    record.metadata |= {k: v for k, v in {**facts, "identified_type": detected}.items() if v}
    record.payload = answer.body
    return record


def _truncated(headers: dict[str, str], answer: Answer) -> str:
    return headers.get("warc-truncated", "") or ("body" if answer.cut else "")


def _converted(record: Record, headers: dict[str, str], block: bytes, place: str) -> Item:
    """The text of a WET file's record; those of Common Crawl say its languages."""
    try:
        record.text = block.decode("utf-8")
    except UnicodeDecodeError:
        return Quarantined(place, "not UTF-8", len(block), block[:HEAD])
    languages = headers.get("warc-identified-content-language", "")
    if languages:
        record.metadata["identified_languages"] = languages
    return record
