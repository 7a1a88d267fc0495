"""Bytes of pages to text: which letters they are in, and what becomes of those that are in none.

The order of belief: a byte order mark; a charset of more than one state that is declared (its bytes
look like ASCII); UTF-8, when all of it is that (chance hardly makes such bytes); the charset of the
HTTP header, then that of the page, when all can be read so; what the bytes look like (uchardet);
the declared one with replacement characters.

Source: WHATWG Encoding Standard, 4.2 (labels; latin-1 is read as windows-1252, gb2312 as gb18030)
and 14 of HTML (a charset in the first 1,024 bytes).
"""

import codecs
import re
from dataclasses import dataclass

MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
META = re.compile(rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.I)
LOOK = 1024
"""Bytes of a page in which it may declare its charset."""
STATES = ("iso2022_jp", "iso2022_kr", "hz", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
NO_LETTERS = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7")
"""Of Python's: not what a page is in, and they give half pairs or errors of their own. UTF-7 the
web refuses; mails have it."""
READ_AS = {
    "iso-8859-1": "windows-1252",
    "latin-1": "windows-1252",
    "latin1": "windows-1252",
    "ascii": "windows-1252",
    "us-ascii": "windows-1252",
    "iso-8859-9": "windows-1254",
    "iso-8859-11": "windows-874",
    "tis-620": "windows-874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "shift-jis": "cp932",
    "x-sjis": "cp932",
    "windows-31j": "cp932",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "big5": "big5hkscs",
    "x-gbk": "gb18030",
    "x-user-defined": "windows-1252",
    "windows-874": "cp874",
}
"""Label -> the charset that reads all that is called so."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text out of bytes."""

    text: str
    charset: str
    by: str
    """mark, utf-8, declared, detected or replaced."""
    replaced: int = 0
    """Bytes that became replacement characters."""


def decode_page(data: bytes, declared: str = "") -> Decoded:
    """The text of a page; `declared` is the charset of its HTTP header."""
    for mark, charset in MARKS:
        if data.startswith(mark):
            return _replaced(data[len(mark) :], charset, "mark")
    labels = [label for label in (declared, _meta(data)) if label]
    known = [charset for charset in map(charset_of, labels) if charset]
    return _believed(data, known) or _guessed(data, known)


def decode_mail(data: bytes, declared: str = "") -> str | None:
    """The text of a part of a mail; None when it is not in the charset of its header, nor UTF-8."""
    if declared.strip().lower() in ("utf-7", "unicode-1-1-utf-7"):  # RFC 2152
        text = _strict(data, "utf-7")
        return text if text is not None and _is_whole(text) else None
    found = _believed(data, [charset for charset in (charset_of(declared),) if charset])
    return found.text if found else None


def _believed(data: bytes, known: list[str]) -> Decoded | None:
    """The text, where all of it can be read as one of the charsets declared, or as UTF-8."""
    first = [charset for charset in known if charset in STATES]
    for charset, by in [*((c, "declared") for c in first), ("utf-8", "utf-8")]:
        if (text := _strict(data, charset)) is not None:
            return Decoded(text, charset, by)
    for charset in known:
        if (text := _strict(data, charset)) is not None:
            return Decoded(text, charset, "declared")
    return None


def _is_whole(text: str) -> bool:
    """Whether no half of a surrogate pair is in it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def charset_of(label: str) -> str:
    """The name under which Python reads what is called `label`; "" for one that is none."""
    name = label.strip().lower()
    name = READ_AS.get(name, name)
    try:
        info = codecs.lookup(READ_AS.get(name, name))
    except (LookupError, ValueError):
        return ""
    return info.name if info._is_text_encoding and info.name not in NO_LETTERS else ""


def _meta(data: bytes) -> str:
    found = META.search(data, 0, LOOK)
    label = found[1].decode("ascii", "ignore") if found else ""
    return "" if label.lower().startswith("utf-16") else label  # it could not be read so


def _guessed(data: bytes, known: list[str]) -> Decoded:
    from resiliparse.parse.encoding import detect_encoding

    detected = charset_of(detect_encoding(data) or "")
    if detected and detected != "utf-8" and (text := _strict(data, detected)) is not None:
        return Decoded(text, detected, "detected")
    return _replaced(data, [*known, detected or "utf-8"][0], "replaced")


def _strict(data: bytes, charset: str) -> str | None:
    try:
        return data.decode(charset)
    except UnicodeError:
        return _c1(data, charset)


def _c1(data: bytes, charset: str) -> str | None:
    """windows-125x with the bytes that it leaves open read as control characters, as WHATWG has
    it; None when it cannot be read so."""
    if not charset.startswith("cp125"):
        return None
    return data.decode(charset, "mj-control")


def _controls(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError), error
    return "".join(map(chr, error.object[error.start : error.end])), error.end


codecs.register_error("mj-control", _controls)


def _replaced(data: bytes, charset: str, by: str) -> Decoded:
    text = data.decode(charset, "replace")
    return Decoded(text, charset, by, text.count("\N{REPLACEMENT CHARACTER}"))
