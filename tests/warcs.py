"""Web archives made by hand, whole and broken."""

import gzip
from pathlib import Path

from megatron_jobs.text.readers import Item, ReadRules, cut_units, input_files, read_unit
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Quarantined, Skipped

PAGE = "<html><title>Page {n}</title><body><p>{text}</p></body></html>"


def record(
    block: bytes, *, kind: str = "response", length: int | None = None, **headers: str
) -> bytes:
    """A WARC record; `length` is what it says of its block, where that is a lie."""
    said = len(block) if length is None else length
    lines = ["WARC/1.0", f"WARC-Type: {kind}", f"Content-Length: {said}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def answer(body: bytes, *, status: str = "200 OK", **headers: str) -> bytes:
    """What a server said."""
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def page(n: int, *, text: str = "", length: int | None = None) -> bytes:
    """A record with a page, its id `<urn:uuid:n>`."""
    body = PAGE.format(n=n, text=text or f"Text of page {n}.").encode()
    return record(
        answer(body, Content_Type="text/html; charset=utf-8"),
        length=length,
        WARC_Record_ID=f"<urn:uuid:{n}>",
        WARC_Target_URI=f"http://example.org/{n}",
        WARC_Date="2024-05-06T07:08:09Z",
        Content_Type="application/http; msgtype=response",
    )


def packed(*records: bytes) -> bytes:
    """Each in a member of gzip of its own."""
    return b"".join(gzip.compress(one, mtime=0) for one in records)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def read(path: Path, *, rules: ReadRules | None = None, unit_bytes: int = 1 << 30) -> list[Item]:
    """All that a file holds."""
    units = cut_units(input_files([path]), unit_bytes)
    found = rules or ReadRules(pages=True)
    return [item for unit in units for item in read_unit(unit, found)]


def told(items: list[Item]) -> list[str]:
    """Each in a word: the id of a record, `!reason` of what is none, `-kind` of what is skipped."""
    words = []
    for item in items:
        match item:
            case Record():
                words.append(item.id.removeprefix("urn:uuid:"))
            case Quarantined():
                words.append(f"!{item.reason}")
            case Skipped():
                words.append(f"-{item.kind}")
    return words
