"""Mails as they were sent, one a file: the text of a mail, or its page when it has no text.

Source: RFC 5322, RFC 2045-2047, as the standard library reads them.
"""

from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parsedate_to_datetime

from megatron_jobs.text.readers import Item, Piece, ReadRules
from megatron_jobs.text.readers.whole import read_whole
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import HEAD, Quarantined


def read(piece: Piece, rules: ReadRules) -> Iterator[Item]:
    """The file's one mail, named by its Message-ID; where it has none, as the file."""
    data = read_whole(piece, rules)
    if isinstance(data, Quarantined):
        yield data
        return
    message = BytesParser(policy=policy.default).parsebytes(data)
    assert isinstance(message, EmailMessage), type(message)
    if not message.keys():
        yield Quarantined(piece.name, "no mail", len(data), data[:HEAD])
        return
    yield _record(message, piece.name, rules)


def _record(message: EmailMessage, name: str, rules: ReadRules) -> Item:
    record = Record(id=_header(message, "message-id").strip("<>") or name, text="")
    record.date = _date(_header(message, "date"))
    if subject := _header(message, "subject"):
        record.metadata["title"] = subject
    found = {part.get_content_type(): part for part in reversed(list(message.walk()))}
    part = found.get("text/plain") or found.get("text/html")
    if part is None:
        return Quarantined(name, "mail without text")
    body = part.get_payload(decode=True)
    body = body if isinstance(body, bytes) else b""
    charset = part.get_content_charset("")
    if rules.pages:
        record.payload = body
        record.metadata |= {"content_type": part.get_content_type(), "charset": charset}
        return record
    try:
        record.text = body.decode(charset or "utf-8")
    except (UnicodeDecodeError, LookupError):
        return Quarantined(name, "not UTF-8", len(body), body[:HEAD])
    return record


def _header(message: EmailMessage, name: str) -> str:
    """A header, or nothing where it breaks the standard so that it cannot be read."""
    try:
        return " ".join(str(message.get(name, "")).split())
    except (ValueError, IndexError, AttributeError, TypeError, KeyError):
        return ""


def _date(value: str) -> str:
    try:
        return parsedate_to_datetime(value).isoformat()
    except (ValueError, TypeError, OverflowError, IndexError):
        return ""
