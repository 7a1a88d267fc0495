"""What a web server answered, as a crawl has kept it: status, headers, body.

Crawls lie in both directions: a body may still be in chunks or packed, or be plain while its
headers say otherwise. What cannot be undone is taken as it is.

Source: RFC 9112, sections 4, 5 and 7.1; RFC 9110, section 8.4.
"""

import re
import zlib
from dataclasses import dataclass, field

import zstandard

MOST_HEADER = 1 << 18
"""Bytes."""
MOST_TYPE = 4000
"""Letters of a Content-Type."""
CHARSET = re.compile(r';\s*charset\s*(\*[0*]*)?\s*=\s*(?:"([^"]*)"|([^;]*))', re.I)
"""The parameter of a Content-Type; not by the standard library, which may raise, and takes time."""


@dataclass(slots=True)
class Answer:
    """A response."""

    status: int = 0
    """0 when the first line has none."""
    headers: dict[str, str] = field(default_factory=dict)
    """By lower case name; of several the first."""
    body: bytes = b""
    cut: bool = False
    """Whether the body ends before its own format says so."""


def parse_answer(block: bytes, limit: int) -> Answer | None:
    """The response in the block of a record; None when no header ends in it.

    Args:
        limit: bytes; a body that would become longer is cut there.
    """
    head, end = _split(block)
    if end < 0:
        return None
    first, *lines = head.split("\n")
    answer = Answer(status=_status(first), headers=parse_headers(lines), body=block[end:])
    if "chunked" in answer.headers.get("transfer-encoding", "").lower():
        answer.body = _join_chunks(answer)
    for coding in reversed(answer.headers.get("content-encoding", "").lower().split(",")):
        answer.body = _unpack(answer, coding.strip(), limit)
    return answer


def parse_headers(lines: list[str]) -> dict[str, str]:
    """Headers by lower case name; folded lines are joined, lines that are none left out."""
    found: dict[str, str] = {}
    last = ""
    for line in lines:
        if line[:1] in (" ", "\t") and last:
            found[last] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        last = name.strip().lower() if colon else ""
        if last in found:
            last = ""
        elif last:
            found[last] = value.strip()
    return found


def content_type(value: str) -> tuple[str, str]:
    """(`text/html`, charset) of a Content-Type; lower case, empty where it says nothing."""
    kind, _, rest = value[:MOST_TYPE].partition(";")
    found = CHARSET.search(f";{rest}")
    word = (found[2] if found[2] is not None else found[3]) if found else ""
    if found and found[1]:  # charset*=utf-8'en'NAME of RFC 2231
        word = word.rpartition("'")[2]
    return kind.strip().lower(), word.strip(" '\"").lower()


def _split(block: bytes) -> tuple[str, int]:
    """The header, its line ends made plain, and where the body begins; -1 when it never does."""
    places = [(block.find(end, 0, MOST_HEADER), len(end)) for end in (b"\r\n\r\n", b"\n\n")]
    found = [(at, at + size) for at, size in places if at >= 0]
    if not found:
        return "", -1
    at, end = min(found)
    return block[:at].decode("latin-1").replace("\r\n", "\n"), end


def _status(line: str) -> int:
    words = line.split(None, 2)
    return int(words[1]) if len(words) > 1 and words[1].isascii() and words[1].isdigit() else 0


def _join_chunks(answer: Answer) -> bytes:
    """The body without the sizes of its chunks; as it is when it has none."""
    body, at = answer.body, 0
    parts: list[bytes] = []
    while True:
        end = body.find(b"\n", at, at + 1024)
        size = _chunk_size(body[at:end]) if end >= 0 else -1
        if size < 0:
            if not parts:
                return body
            answer.cut = True
            return b"".join(parts)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 1 : end + 1 + size])
        at = end + 1 + size
        at += 2 if body[at : at + 2] == b"\r\n" else 1


def _chunk_size(line: bytes) -> int:
    word = line.split(b";")[0].strip()
    try:
        return int(word, 16) if word.isalnum() and len(word) < 16 else -1
    except ValueError:
        return -1


def _unpack(answer: Answer, coding: str, limit: int) -> bytes:
    """The body without a coding; what came before a damage, or the body when nothing did."""
    body = answer.body
    if coding in ("gzip", "x-gzip", "deflate"):
        for form in (31,) if coding != "deflate" else (15, -15):
            found = _inflate(answer, form, limit)
            if found:
                return found
    elif coding == "zstd":
        return _unpack_zstd(answer, limit)
    elif coding == "br":
        return _unpack_brotli(answer, limit)
    return body


def _inflate(answer: Answer, form: int, limit: int) -> bytes:
    unpacker = zlib.decompressobj(form)
    found = b""
    try:
        found = unpacker.decompress(answer.body, limit)
    except zlib.error:
        found = _pieces(zlib.decompressobj(form), answer.body, limit)
    answer.cut = answer.cut or (bool(found) and not unpacker.eof)
    return found


def _pieces(unpacker: "zlib._Decompress", body: bytes, limit: int) -> bytes:
    """What comes out before the damage."""
    found = bytearray()
    try:
        for at in range(0, len(body), 256):
            found += unpacker.decompress(body[at : at + 256], limit)
            if len(found) >= limit:
                break
    except zlib.error:
        pass
    return bytes(found)


def _unpack_zstd(answer: Answer, limit: int) -> bytes:
    stream = zstandard.ZstdDecompressor().stream_reader(answer.body, read_across_frames=True)
    try:
        return bytes(stream.read(limit)) or answer.body
    except zstandard.ZstdError:
        return answer.body


def _unpack_brotli(answer: Answer, limit: int) -> bytes:
    import brotli

    unpacker = brotli.Decompressor()
    found = bytearray()
    try:
        packed = answer.body
        while len(found) < limit and not unpacker.is_finished():
            data = unpacker.process(packed, output_buffer_limit=1 << 20)
            found += data
            packed = b""
            if not data and unpacker.can_accept_more_data():
                answer.cut = True
                break
    except brotli.error:
        answer.cut = bool(found)
    return bytes(found[:limit]) or answer.body
