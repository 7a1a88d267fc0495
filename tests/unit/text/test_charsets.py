"""Bytes of pages in the letters of the world, with declarations that are true, lies, or missing."""

import encodings.aliases
import random

import pytest

from megatron_jobs.text.charsets import charset_of, decode_mail, decode_page

TEXTS = {
    "windows-1252": "Café “naïve” – été, Größe",
    "windows-1251": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "koi8-r": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "iso-8859-2": "Zażółć gęślą jaźń, příliš žluťoučký kůň",
    "shift_jis": "いろはにほへと ちりぬるを わかよたれそ つねならむ",
    "euc-jp": "いろはにほへと ちりぬるを わかよたれそ つねならむ",
    "gb2312": "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。",
    "big5": "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。",
    "euc-kr": "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "windows-1256": "نص حكيم له سر قاطع وذو شأن عظيم",
    "iso-2022-jp": "いろはにほへと",
    "utf-8": "Größe いろは ещё",
}


@pytest.mark.parametrize("charset", TEXTS)
def test_declared_by_the_server(charset: str) -> None:
    text = TEXTS[charset]
    assert decode_page(text.encode(charset), charset).text == text


@pytest.mark.parametrize("charset", TEXTS)
@pytest.mark.parametrize(
    "form",
    ['<meta charset="{}">', "<META http-equiv=x content='text/html; charset={}'>",
     '<?xml version="1.0" encoding="{}"?>'],
)  # fmt: skip
def test_declared_by_the_page(charset: str, form: str) -> None:
    page = form.format(charset) + TEXTS[charset]
    assert decode_page(page.encode(charset)).text == page


def test_utf_8_that_is_declared_otherwise() -> None:
    for declared in ("iso-8859-1", "windows-1251", "gb2312", "nonsense", ""):
        found = decode_page(TEXTS["utf-8"].encode(), declared)
        assert (found.text, found.by) == (TEXTS["utf-8"], "utf-8")


def test_byte_order_marks_go_before_all() -> None:
    for mark, charset in (
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
    ):
        found = decode_page(mark + TEXTS["utf-8"].encode(charset), "koi8-r")
        assert (found.text, found.by, found.replaced) == (TEXTS["utf-8"], "mark", 0)


def test_undeclared_letters_are_detected() -> None:
    for charset in ("windows-1251", "shift_jis", "euc-jp", "big5"):
        text = TEXTS[charset] * 5
        found = decode_page(text.encode(charset))
        assert (found.text, found.by) == (text, "detected"), charset


def test_labels_read_more_than_they_say() -> None:
    """The web's latin-1 is windows-1252, with control characters where that is open."""
    assert decode_page(b"\x93a\x94 \xe9", "ISO-8859-1").text == "“a” é"
    assert decode_page(b"\x81\xe9\x8d \xff", "windows-1252").text == "\x81é\x8d ÿ"
    assert charset_of("GB2312") == "gb18030"
    for nonsense in ("", "nonsense", "hex", "base64", "rot13", "\0", "a" * 300):
        assert charset_of(nonsense) == ""


def test_charsets_that_are_no_letters() -> None:
    """Whatever is declared: text comes out, without half a surrogate pair."""
    names = sorted(encodings.aliases.aliases.keys() | set(encodings.aliases.aliases.values()))
    draw = random.Random(1)
    for name in [*names, "undefined", "unicode_escape", "raw_unicode_escape", "punycode", "idna"]:
        for data in (b"\\ud800 \xff", b"+2AA- \xff", b"xn--a-\x80", draw.randbytes(40)):
            decode_page(data, name).text.encode()
            (decode_mail(data, name) or "").encode()


def test_bytes_that_are_no_letters() -> None:
    found = decode_page(b"abc \xff\xff def" * 3, "utf-8")
    assert found.text.startswith("abc ")
    noise = bytes([0x80, 0xFE, 0xFF, 0x00, 0xD8]) * 100
    decode_page(noise, "shift_jis").text.encode()  # never half a pair


def test_utf_16_that_the_page_itself_declares_is_not_believed() -> None:
    page = '<meta charset="utf-16">' + "é"
    assert decode_page(page.encode()).text == page
