"""Answers of servers, as crawls have kept them: in chunks, packed, or lying about either."""

import gzip
import time
import zlib

import brotli
import pytest
import zstandard

from megatron_jobs.text.http import content_type, parse_answer

BODY = b"<p>" + b"some words of a page " * 50


def body_of(body: bytes, *headers: str, limit: int = 10**6) -> tuple[bytes, bool]:
    head = "\r\n".join(["HTTP/1.1 200 OK", *headers]).encode()
    found = parse_answer(head + b"\r\n\r\n" + body, limit)
    assert found is not None
    return found.body, found.cut


def chunks(body: bytes, size: int = 100) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;note=1\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


PACKERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": lambda body: zlib.compress(body, wbits=-15),
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "identity": bytes,
    "": bytes,
}


@pytest.mark.parametrize("coding", PACKERS)
def test_codings(coding: str) -> None:
    header = f"Content-Encoding: {coding}"
    packed = PACKERS[coding](BODY)
    assert body_of(packed, header) == (BODY, False)
    assert body_of(chunks(packed), header, "Transfer-Encoding: chunked") == (BODY, False)
    assert body_of(BODY, header, "Transfer-Encoding: chunked") == (BODY, False), "undone already"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "Deflate", "br"])
def test_packed_bodies_that_are_cut(coding: str) -> None:
    noise = bytes(range(256)) * 40
    packed = PACKERS[coding](noise + BODY)
    found, cut = body_of(packed[: len(packed) - 20], f"Content-Encoding: {coding}")
    assert cut
    assert (noise + BODY).startswith(found)
    assert found


def test_chunks_that_end_early() -> None:
    found, cut = body_of(chunks(BODY)[:350], "Transfer-Encoding: chunked")
    assert cut
    assert BODY.startswith(found)
    assert 200 <= len(found) <= 350


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_bomb_is_cut(coding: str) -> None:
    bomb = PACKERS[coding](b"x" * 10**7)
    assert len(body_of(bomb, f"Content-Encoding: {coding}", limit=10**5)[0]) <= 10**5


def test_headers_in_all_states() -> None:
    found = parse_answer(b"HTTP/1.0 404\r\nA: 1\r\n folded\r\nnothing\r\na: 2\nB:\r\n\r\nx", 100)
    assert found is not None
    assert (found.status, found.body) == (404, b"x")
    assert found.headers == {"a": "1 folded", "b": ""}
    for line, status in {b"HTTP/1.1": 0, b"ICY x": 0, b"": 0, b"HTTP/1.1 200": 200}.items():
        found = parse_answer(line + b"\n\nx", 100)
        assert found is not None
        assert (found.status, found.body) == (status, b"x")
    assert parse_answer(b"HTTP/1.1 200 OK\r\nA: 1\r\n", 100) is None


def test_content_types() -> None:
    assert content_type('Text/HTML; Charset="UTF-8"') == ("text/html", "utf-8")
    assert content_type("text/html;charset='latin-1'") == ("text/html", "latin-1")
    assert content_type("text/html; x=1") == ("text/html", "")
    assert content_type("text/html; charset=") == ("text/html", "")
    assert content_type("") == ("", "")


def test_types_that_break_the_rules() -> None:
    """Nothing raises or takes long; RFC 2231 counts parts of one name in two ways."""
    for value, charset in {
        "text/html; charset*0=a; charset*=b": "a",
        "text/html; charset*=utf-8'en'latin-1": "latin-1",
        "text/html;x=\"; y\";CHARSET = ' UTF-8 '": "utf-8",
        'text/html;charset="a b;c": "; x': "a b;c",
        "text/html;charset": "",
        "text/html;charset=": "",
        'text/html;charset="': "",
    }.items():
        assert content_type(value) == ("text/html", charset), value
    start = time.monotonic()
    for junk in (';"', '";"', "charset*0=;", "charset=a;", "charset" + " " * 99, ";charset" * 9):
        content_type("text/html;" + junk * 50_000)
    assert time.monotonic() - start < 1
