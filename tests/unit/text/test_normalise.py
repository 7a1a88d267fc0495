"""Texts brought to one form; those that are in it are left alone."""

import random
import unicodedata

import ftfy
import pytest

from megatron_jobs.text.normalise import MOJIBAKE, NormalRules, normalise

SENTENCES = [
    "Größe, naïve café – “quoted”, it’s 5 € … déjà vu",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Россия, СССР",
    "いろはにほへと ちりぬるを、天地玄黃。",
    "Zażółć gęślą jaźń",
    "می‌خواهم किताब 👩‍👩‍👧 Ελληνικά עברית",
]


def test_mojibake_is_undone() -> None:
    for text in SENTENCES[:2]:
        for charset in ("windows-1252", "windows-1251", "latin-1"):
            broken = text.encode().decode(charset, "ignore")
            if broken.encode(charset, "ignore") != text.encode():
                continue  # the charset has no letter for one of the bytes
            found = normalise(broken, NormalRules(controls=False, spaces=False))
            assert (found.text, found.repaired) == (text, True), charset


@pytest.mark.parametrize("text", SENTENCES)
def test_good_text_is_not_repaired(text: str) -> None:
    found = normalise(text, NormalRules())
    assert (found.text, found.repaired) == (text, False)


def test_what_is_looked_at_is_what_ftfy_would_change() -> None:
    """The cheap look misses little: of sentences read as another charset, what ftfy mends."""
    missed = 0
    for text in SENTENCES:
        for charset in ("windows-1252", "latin-1", "windows-1251", "mac-roman"):
            broken = text.encode().decode(charset, "replace")
            mended = ftfy.fix_encoding(broken)
            missed += mended != broken and not MOJIBAKE.search(broken)
    assert missed == 0


def test_characters_that_nobody_sees() -> None:
    text = "a\0b\x07c\ufeffd\u200be\u00adf\u202eg\x7fh\x9bi\tj"
    assert normalise(text, NormalRules()).text == "abcdefghi\tj"
    kept = normalise(text, NormalRules(controls=False)).text
    assert kept == text


def test_white_space() -> None:
    text = "\n\n a\u00a0b  \r\nc\rd\u2028e\x85f\t \n\n\n\n\ng\u3000h\n \n\t\n\ni \n"
    assert normalise(text, NormalRules()).text == " a b\nc\nd\ne\nf\n\ng\u3000h\n\ni"
    assert normalise("a \r\n", NormalRules(spaces=False)).text == "a \r\n"


def test_forms() -> None:
    text = "e\u0301 ﬁ ｱ ² Å"
    assert normalise(text, NormalRules()).text == unicodedata.normalize("NFC", text)
    assert normalise(text, NormalRules(form="NFKC")).text == unicodedata.normalize("NFKC", text)
    assert normalise(text, NormalRules(form="none")).text == text


def test_what_is_normal_stays_so() -> None:
    noise = random.Random(1)
    letters = "ab \n\r\t\0\u00a0\u200b\u0301é\u2028\u3000ßК"
    for _ in range(300):
        text = "".join(noise.choices(letters, k=30))
        once = normalise(text, NormalRules()).text
        assert normalise(once, NormalRules()).text == once
