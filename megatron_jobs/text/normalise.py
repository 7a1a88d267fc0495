"""The same letters for the same text: mojibake, Unicode forms, control characters, white space.

Zero width joiners and non-joiners stay: Persian, the scripts of India and emoji need them. Quotes,
ligatures and full width letters stay too: they are the writer's.

Source: Unicode Standard Annex 15 (forms); chapter 23 (control and format characters).
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Form = Literal["NFC", "NFKC", "none"]
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""All but tab, line feed, carriage return and next line."""
INVISIBLE = re.compile(
    "[\u00ad\u200b\u2060\ufeff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufff9-\ufffb]"
)
"""Soft hyphen, zero width space and no-break space, word joiner, marks of direction, anchors."""
LINE_ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
"""Kinds of a space; the ideographic one (U+3000) stays."""
TRAILING = re.compile(r"[ \t]+$", re.M)
EMPTY_LINES = re.compile(r"\n{3,}")
WESTERN = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
CYRILLIC = "\u00a0¤¦§©«¬\u00ad®°±µ¶·»ЂЃѓ‚„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—™љ›њќћџЎўЈҐЄЇІіґ№єјЅѕї\u0098ё"
"""What bytes 80 to BF, the second and later ones of a letter, are in windows-1252 and -1251."""
MOJIBAKE = re.compile(
    f"[Â-ôÅ][{WESTERN}]|[ВГДЕРС][{CYRILLIC}]|[в-п][{CYRILLIC}]{{2}}"
    "|√[©®±∂ßº†]|‚Ä[îìôùò¢¶]"  # UTF-8 read as Mac Roman
)
"""What may be UTF-8 that was read as something else; ftfy decides. A cheap look first: ftfy reads
7 MB/s."""


@dataclass(frozen=True)
class NormalRules:
    """What is made the same."""

    form: Form = "NFC"
    controls: bool = True
    """Remove control characters and invisible ones."""
    spaces: bool = True
    """One kind of line end and of space; no spaces before a line end, one empty line at most."""
    repair: bool = True
    """Undo mojibake."""


@dataclass(frozen=True, slots=True)
class Normal:
    """A text made normal."""

    text: str
    repaired: bool


def normalise(text: str, rules: NormalRules) -> Normal:
    """The text by `rules`; what is normal already comes back as it is."""
    repaired = text
    if rules.repair and not text.isascii():
        repaired = _repair(text)
    return Normal(_normal(repaired, rules), repaired != text)


def _repair(text: str) -> str:
    if not MOJIBAKE.search(text):
        return text
    import ftfy

    lines = text.split("\n")
    return "\n".join(ftfy.fix_encoding(line) if MOJIBAKE.search(line) else line for line in lines)


def _normal(text: str, rules: NormalRules) -> str:
    if rules.controls:
        text = CONTROLS.sub("", text)
        if not text.isascii():
            text = INVISIBLE.sub("", text)
    if rules.form != "none" and not text.isascii():
        text = _formed(text, rules.form)
    if rules.spaces:
        text = _spaced(text)
    return text


def _formed(text: str, form: Literal["NFC", "NFKC"]) -> str:
    return text if unicodedata.is_normalized(form, text) else unicodedata.normalize(form, text)


def _spaced(text: str) -> str:
    if not text.isascii():
        text = SPACES.sub(" ", text)
    if not text.isascii() or "\r" in text:
        text = LINE_ENDS.sub("\n", text)
    if " \n" in text or "\t\n" in text:
        text = TRAILING.sub("", text)
    if "\n\n\n" in text:
        text = EMPTY_LINES.sub("\n\n", text)
    return text.strip("\n").rstrip()
