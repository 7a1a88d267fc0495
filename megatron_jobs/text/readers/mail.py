"""Mails as they were sent, one a file: the text of a mail, or its page when it has no text.

Headers are read here and not by the standard library's parsers of addresses and words: those need
hours, or more memory than there is, for a few thousand brackets.

Source: RFC 5322, RFC 2045-2047; the parts of a mail as the standard library finds them.
"""

import binascii
import re
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesParser
from email.policy import Compat32
from email.utils import parsedate_to_datetime
from itertools import groupby

from megatron_jobs.text.charsets import charset_of, decode_mail
from megatron_jobs.text.http import content_type
from megatron_jobs.text.readers import Item, Piece, ReadRules
from megatron_jobs.text.readers.whole import read_whole
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import HEAD, Quarantined

MOST_HEADER = 4000
"""Letters of a header; what is behind is not looked at."""
WORD = re.compile(r"=\?([^?\s*]+)(?:\*[^?\s]*)?\?([qQbB])\?([^?]*)\?=")
WORDS = re.compile(rf"{WORD.pattern}(?:\s+{WORD.pattern})*")
MESSAGE_ID = re.compile(r"<?([^<>]+)")
Q_BYTE = re.compile(rb"=([0-9A-Fa-f]{2})")
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What the standard library raises where a mail breaks the rules."""


class _ShortHeaders(Compat32):
    """Headers are plain strings, of MOST_HEADER letters."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        """See the standard library."""
        name, value = super().header_source_parse(sourcelines)
        return name, value[:MOST_HEADER]


def read(piece: Piece, rules: ReadRules) -> Iterator[Item]:
    """The file's one mail, named by its Message-ID; where it has none, as the file."""
    data = read_whole(piece, rules)
    if isinstance(data, Quarantined):
        yield data
        return
    try:
        yield _record(data, piece.name, rules)
    except UNREADABLE:
        yield Quarantined(piece.name, "damaged", len(data), data[:HEAD])


def _record(data: bytes, name: str, rules: ReadRules) -> Item:
    message = BytesParser(policy=_ShortHeaders()).parsebytes(data)
    if not message.keys():
        return Quarantined(name, "no mail", len(data), data[:HEAD])
    found = MESSAGE_ID.search(_header(message, "message-id"))
    record = Record(id=found[1] if found else name, text="")
    record.date = _date(_header(message, "date"))
    if subject := _header(message, "subject"):
        record.metadata["title"] = subject
    parts = {part.get_content_type(): part for part in reversed(list(message.walk()))}
    part = parts.get("text/plain") or parts.get("text/html")
    if part is None:
        return Quarantined(name, "mail without text")
    return _with_text(record, part, name, rules)


def _with_text(record: Record, part: "Message[str, str]", name: str, rules: ReadRules) -> Item:
    body = part.get_payload(decode=True)
    body = body if isinstance(body, bytes) else b""
    charset = content_type(_header(part, "content-type"))[1]
    if rules.pages:
        record.payload = body
        record.metadata |= {"content_type": part.get_content_type(), "charset": charset}
        return record
    text = decode_mail(body, charset)
    if text is None:
        return Quarantined(name, "not UTF-8", len(body), body[:HEAD])
    record.text = text
    return record


def _header(message: "Message[str, str]", name: str) -> str:
    """A header on one line, its words decoded."""
    raw = next((value for key, value in message.raw_items() if key.lower() == name), "")
    plain = raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return " ".join(WORDS.sub(_words, plain).split())


def _words(found: re.Match[str]) -> str:
    """RFC 2047: words of one charset side by side may share a letter between them."""
    words = [(one[1], _bytes_of(one[2], one[3])) for one in WORD.finditer(found[0])]
    texts = []
    for charset, group in groupby(words, key=lambda word: word[0].lower()):
        parts = [part for _, part in group]
        each = [text for part in parts if (text := decode_mail(part, charset)) is not None]
        texts.append("".join(each) if len(each) == len(parts) else _joined(parts, charset))
    return "".join(texts)


def _joined(parts: list[bytes], charset: str) -> str:
    data = b"".join(parts)
    text = decode_mail(data, charset)
    return data.decode(charset_of(charset) or "utf-8", "replace") if text is None else text


def _bytes_of(coding: str, word: str) -> bytes:
    data = word.encode("utf-8", "replace")
    if coding in "qQ":
        return Q_BYTE.sub(lambda hit: bytes([int(hit[1], 16)]), data.replace(b"_", b" "))
    try:
        return binascii.a2b_base64(data + b"==")
    except binascii.Error:
        return data


def _date(value: str) -> str:
    try:
        return parsedate_to_datetime(value).isoformat()
    except (ValueError, TypeError, OverflowError, IndexError):
        return ""
