"""Files that are one document each: texts, pages, mails."""

import gzip
from email.message import EmailMessage
from pathlib import Path

from megatron_jobs.text.readers import ReadRules
from megatron_jobs.text.record import Record
from tests.warcs import read, told, write


def one(path: Path, pages: bool = False) -> Record:
    items = read(path, rules=ReadRules(pages=pages))
    assert len(items) == 1
    assert isinstance(items[0], Record), items
    return items[0]


def test_texts(tmp_path: Path) -> None:
    assert one(write(tmp_path / "a.txt", "\ufeffGröße\n".encode())).text == "Größe\n"
    assert one(write(tmp_path / "a.txt.gz", gzip.compress(b"x"))).id == "a.txt.gz"
    assert told(read(write(tmp_path / "a.txt", b"\xff"), rules=ReadRules())) == ["!not UTF-8"]
    assert one(tmp_path / "a.txt", pages=True).payload == b"\xff"
    assert told(read(write(tmp_path / "a.txt", b""))) == []
    long = ReadRules(limit=10)
    assert told(read(write(tmp_path / "a.txt", b"x" * 11), rules=long)) == ["!too long"]
    assert told(read(write(tmp_path / "a.txt.gz", gzip.compress(b"x")[:-3]))) == ["!cut short"]


def test_pages(tmp_path: Path) -> None:
    found = one(write(tmp_path / "a.HTML", b"<p>\xff"), pages=True)
    assert (found.id, found.payload) == ("a.HTML", b"<p>\xff")
    assert found.metadata == {"content_type": "text/html"}


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
        b"Content-Type: text/plain; charset=nonsense\n\nx": "not UTF-8",
    }.items():
        assert told(read(write(tmp_path / "a.eml", data), rules=ReadRules())) == [f"!{reason}"]
    for data in (
        b"Date: \xff\nSubject: =?x?q?\n\nx",
        b"Message-ID: <[\nDate: 99\n\nx",
        b"A: " + b"(" * 9999,
    ):
        assert len(told(read(write(tmp_path / "a.eml", data + b"\n\nx")))) == 1
