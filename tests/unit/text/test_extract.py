"""Pages to texts: main content, verdicts, letters, licences."""

import pytest

from megatron_jobs.text.extract import Extractor, ExtractRules, Mode
from megatron_jobs.text.normalise import NormalRules
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

PAGE = """<!doctype html><html lang="pt_BR"><head><title> A  story
of Größe </title><script>var x = "hidden script";</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/a">About us</a></li></ul></nav>
<main><article><h1>A story</h1>
<p>Once upon a time there was a page that said something worth keeping, in words of Größe.</p>
<p>It had a second paragraph, for two are better than one, and more words to fill the line.</p>
<pre>  def f():
      return 1</pre></article></main>
<footer>Copyright nobody {}</footer></body></html>"""


def treated(body: bytes, rules: ExtractRules | None = None, **facts: object) -> Record | Verdict:
    facts = {"status": 200, "content_type": "text/html"} | facts
    record = Record("x", "", metadata=facts, payload=body)
    return Extractor(rules or ExtractRules()).treat(record)


@pytest.mark.parametrize("mode", ["fast", "careful", "plain"])
def test_the_content_of_a_page(mode: Mode) -> None:
    found = treated(PAGE.encode(), ExtractRules(mode=mode))
    assert isinstance(found, Record)
    assert "Once upon a time" in found.text
    assert "second paragraph" in found.text
    assert "hidden script" not in found.text
    assert ("About us" in found.text) == (mode == "plain")
    assert found.metadata["title"] == "A story of Größe"
    assert found.metadata["html_language"] == "pt-br"
    assert (found.language, found.payload) == ("", b"")


def test_letters_of_the_page() -> None:
    for charset in ("utf-8", "iso-8859-1", "utf-16"):
        extractor = Extractor(ExtractRules())
        metadata = {"content_type": "text/html", "charset": charset}
        found = extractor.treat(Record("x", "", metadata=metadata, payload=PAGE.encode(charset)))
        assert isinstance(found, Record)
        assert "words of Größe" in found.text
        by = {"utf-8": "utf-8", "iso-8859-1": "declared", "utf-16": "mark"}[charset]
        assert extractor.numbers()[f"charset.{by}"] == 1
        assert extractor.numbers() == {}


def test_what_is_rejected() -> None:
    page = PAGE.encode()
    assert treated(page, status=404) == Verdict("extract.http_status", 404, [200])
    assert isinstance(treated(page, ExtractRules(statuses=(200, 404)), status=404), Record)
    pdf = treated(b"%PDF-1.4", content_type="application/pdf")
    assert pdf == Verdict("extract.not_html", "application/pdf", "text/html or text/plain")
    assert treated(b"<html><body></body></html>") == Verdict("extract.empty", 0, 1)
    assert treated(b"") == Verdict("extract.empty", 0, 1)
    short = treated(b"<p>five!</p>", ExtractRules(min_letters=6))
    assert short == Verdict("extract.too_short", 5, 6)
    noise = treated(b"<p>" + bytes(range(128, 256)) * 3, charset="utf-8")
    assert isinstance(noise, Verdict)
    assert noise.rule == "extract.unreadable"


def test_types_that_say_nothing() -> None:
    for kind in ("", "application/octet-stream"):
        assert isinstance(treated(PAGE.encode(), content_type=kind), Record)
        found = treated(b"\x89PNG", content_type=kind)
        assert isinstance(found, Verdict)
        assert found.rule == "extract.not_html"
    found = treated(b"\x89PNG", content_type="", identified_type="image/png")
    assert found == Verdict("extract.not_html", "image/png", "text/html or text/plain")


def test_plain_text_and_records_with_text() -> None:
    found = treated("Größe\r\n\0x".encode("latin-1"), content_type="text/plain")
    assert isinstance(found, Record)
    assert found.text == "Größe\nx"
    record = Record("x", "caf\u00c3\u00a9\u00a0e\u0301", metadata={"score": 1})
    extractor = Extractor(ExtractRules())
    again = extractor.treat(record)
    assert isinstance(again, Record)
    assert (again.text, again.metadata) == ("café é", {"score": 1})
    assert extractor.numbers()["repaired"] == 1
    kept = Extractor(ExtractRules(normal=NormalRules(repair=False))).treat(
        Record("x", "caf\u00c3\u00a9")
    )
    assert isinstance(kept, Record)
    assert kept.text == "caf\u00c3\u00a9"


def test_records_that_were_extracted_once_are_texts() -> None:
    once = treated(PAGE.encode())
    assert isinstance(once, Record)
    text = once.text
    again = Extractor(ExtractRules()).treat(once)
    assert isinstance(again, Record)
    assert again.text == text


LINKS = {
    "http://creativecommons.org/licenses/by-sa/4.0/": "CC-BY-SA-4.0",
    "https://creativecommons.org/licenses/by/3.0/deed.de": "CC-BY-3.0",
    "https://creativecommons.org/licenses/by-nc-nd/2.5/": "CC-BY-NC-ND-2.5",
    "https://creativecommons.org/publicdomain/zero/1.0/": "CC0-1.0",
    "https://creativecommons.org/publicdomain/mark/1.0/": "CC-PDM-1.0",
    "https://www.gnu.org/licenses/gpl.html": "",
    "https://evil.example/creativecommons.org/licenses/by/4.0/": "",
}


@pytest.mark.parametrize("link", LINKS)
def test_licences(link: str) -> None:
    page = PAGE.format(f"<a rel='license noopener' href='{link}'>licence</a>").encode()
    found = treated(page)
    assert isinstance(found, Record)
    assert found.licence == LINKS[link]
    off = treated(page, ExtractRules(licences=False))
    assert isinstance(off, Record)
    assert off.licence == ""


def test_a_page_with_two_licences_says_nothing() -> None:
    links = [f"<a rel=license href='{link}'>x</a>" for link in list(LINKS)[:2]]
    found = treated(PAGE.format("".join(links)).encode())
    assert isinstance(found, Record)
    assert found.licence == ""
    twice = treated(PAGE.format(links[0] * 2).encode())
    assert isinstance(twice, Record)
    assert twice.licence == "CC-BY-SA-4.0"


def test_a_page_of_boxes_in_boxes() -> None:
    found = treated(b"<div>" * 20_000)
    assert found == Verdict("extract.too_deep", 20_000, 2000)
    assert isinstance(treated(b"<div>x</div>" * 20_000), Record)


@pytest.mark.parametrize("mode", ["fast", "careful", "plain"])
def test_hostile_pages(mode: Mode) -> None:
    """Nothing of these may raise."""
    pages = [
        b"<" * 10_000, b"<div>" * 2_000, b"<table><tr><td>" * 3_000, b"\0" * 5_000,
        b"<!--" + b"x" * 10_000, b"<html lang='" + b"x" * 10_000, b"</p>" * 10_000,
        b"<title>" + b"<b>" * 5_000, b"<p>" + bytes(range(256)) * 20, b"&#x110000;&#xd800;&#0;x",
        "<p>\ud800".encode("utf-8", "surrogatepass"), b"<svg><style><p>x", b"<template><p>x",
    ]  # fmt: skip
    for page in pages:
        found = treated(page, ExtractRules(mode=mode))
        if isinstance(found, Record):
            found.text.encode()
