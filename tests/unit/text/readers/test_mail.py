"""Mails: their texts and headers in all charsets, and those that break every rule."""

import random
import time
from email.header import Header
from email.message import EmailMessage
from pathlib import Path

import pytest

from megatron_jobs.text.readers import ReadRules
from megatron_jobs.text.record import Record, to_line
from tests.warcs import read, told, write


def one(path: Path, pages: bool = False) -> Record:
    items = read(path, rules=ReadRules(pages=pages))
    assert len(items) == 1
    assert isinstance(items[0], Record), items
    return items[0]


def mail(**headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return message


def test_mails(tmp_path: Path) -> None:
    message = mail(Subject="Größe", Date="Mon, 6 May 2024 07:08:09 +0200", Message_ID="<a@b>")
    message.set_content("Ein Text: é\n")
    message.add_alternative("<p>A page", subtype="html")
    message.add_attachment(b"\0", maintype="image", subtype="png")
    path = write(tmp_path / "a.eml", bytes(message))
    found = one(path)
    assert (found.id, found.date) == ("a@b", "2024-05-06T07:08:09+02:00")
    assert (found.text, found.metadata) == ("Ein Text: é\n", {"title": "Größe"})
    page = mail(Subject="x")
    page.set_content("<p>A page", subtype="html", charset="latin-1")
    found = one(write(tmp_path / "b.eml", bytes(page)), pages=True)
    assert (found.id, found.payload) == ("b.eml", b"<p>A page\n")
    assert found.metadata == {"title": "x", "content_type": "text/html", "charset": "iso-8859-1"}


def test_mails_that_are_none(tmp_path: Path) -> None:
    picture = mail(Subject="x")
    picture.set_content(b"\0", maintype="image", subtype="png")
    for data, reason in {
        bytes(picture): "mail without text",
        b"\nonly a text": "no mail",
        b"Content-Type: text/plain; charset=nonsense\n\n\xe9": "not UTF-8",
    }.items():
        assert told(read(write(tmp_path / "a.eml", data), rules=ReadRules())) == [f"!{reason}"]
    for data in (
        b"Date: \xff\nSubject: =?x?q?\n\nx",
        b"Message-ID: <[\nDate: 99\n\nx",
        b"A: " + b"(" * 9999,
    ):
        assert len(told(read(write(tmp_path / "a.eml", data + b"\n\nx")))) == 1


@pytest.mark.parametrize(
    "charset",
    ["a\0b", "undefined", "punycode", "idna", "unicode_escape", "raw-unicode-escape", "hex",
     "nonsense", "utf-16", "utf-7", '"', "=?a?q?b?="],
)  # fmt: skip
@pytest.mark.parametrize("form", ["charset={}", "charset*0*={}''x", "charset*={}'x'%ff"])
def test_charsets_that_are_none(tmp_path: Path, charset: str, form: str) -> None:
    """No mail ends the pass, and what is read can be written."""
    for body in (b"abc", b"\\ud800", b"+2AA-", b"\xff\xfe\0\xd8", b"xn--a-\x80"):
        head = f"From: a\nContent-Type: text/plain; {form.format(charset)}\n\n".encode()
        path = write(tmp_path / "a.eml", head + body)
        for pages in (False, True):
            (item,) = read(path, rules=ReadRules(pages=pages))
            if isinstance(item, Record):
                item.payload = b""
                to_line(item)


def test_texts_in_the_charset_that_is_said(tmp_path: Path) -> None:
    for charset, said in (
        ("utf-7", "UTF-7"),
        ("cp1252", "us-ascii"),
        ("iso2022_jp", "ISO-2022-JP"),
    ):
        text = "あ" if charset == "iso2022_jp" else "“Größe”"
        head = f"From: a\nContent-Type: text/plain; charset={said}\n\n".encode()
        assert one(write(tmp_path / "a.eml", head + text.encode(charset))).text == text
    assert one(write(tmp_path / "a.eml", "From: a\nSubject: é\n\né".encode())).text == "é"


@pytest.mark.parametrize("charset", ["utf-8", "gb18030", "iso-2022-jp", "utf-16"])
def test_subjects(tmp_path: Path, charset: str) -> None:
    """As the standard library writes them, in words of any length."""
    draw = random.Random(charset)
    letters = "ab かな日本 " if charset == "iso-2022-jp" else "ab ßЖ日本 "
    for _ in range(30):
        text = "".join(draw.choices(letters, k=draw.randrange(1, 60))).strip() or "x"
        written = Header(text, charset, maxlinelen=draw.choice([40, 76])).encode()
        path = write(tmp_path / "a.eml", f"Subject: {written}\n\nx".encode())
        assert one(path).metadata["title"] == " ".join(text.split())


def test_subjects_that_break_the_rules(tmp_path: Path) -> None:
    for raw, title in {
        "é".encode(): "é",
        b"=?utf-8?q?a=C3?= =?utf-8?q?=A9_b?= c": "aé b c",
        b"=?utf-8*de?Q?a b?=": "a b",
        b"=?nonsense?q?=E9?=": "\N{REPLACEMENT CHARACTER}",
        b"=?big5?b?gYE?=x": "\N{REPLACEMENT CHARACTER}" * 2 + "x",
        b"=?x?q?": "=?x?q?",
    }.items():
        found = one(write(tmp_path / "a.eml", b"Subject: " + raw + b"\n\nx"))
        assert found.metadata["title"] == title, raw


@pytest.mark.parametrize("name", ["Message-ID", "Subject", "Date", "Content-Type"])
def test_headers_that_would_take_hours(tmp_path: Path, name: str) -> None:
    start = time.monotonic()
    for junk in ("(", "[", '"', ";a=", ";charset*0=", "=?", "=?utf-8?q?a?= ", "<@a,", "(a)"):
        path = write(tmp_path / "a.eml", f"From: a\n{name}: {junk * 50_000}\n\nabc".encode())
        assert one(path).text == "abc"
    assert time.monotonic() - start < 5


def test_parts_in_parts_in_parts(tmp_path: Path) -> None:
    parts = [b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n) for n in range(3000)]
    assert told(read(write(tmp_path / "a.eml", b"".join(parts) + b"\nabc"))) == ["!damaged"]
