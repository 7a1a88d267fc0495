"""National numbers of people: one pattern and one check a country.

Numbers whose check digits leave much to chance, and that look like any other number, are taken only
behind a word that names them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from megatron_jobs._personal import ELEVEN, ID_WORD, LETTERED, NINE, THIRTEEN
from megatron_jobs.text.redact_checks import compact, date, digits_of, luhn, weighted

Check = Callable[[bytes], bool]
BEFORE, AFTER = r"(?<![A-Za-z0-9.-])", r"(?![A-Za-z0-9]|[.-]\d)"
DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
HETU_LETTERS = "0123456789ABCDEFHJKLMNPRSTUVWXY"
ODD_VALUES = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3,
         6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip
"""Of characters in odd places of an Italian codice fiscale (decree of 23 December 1976)."""


@dataclass(frozen=True)
class NationalId:
    """One country's number."""

    country: str
    """ISO 3166-1."""
    traces: int
    """At which it is tried: constants of _personal."""
    pattern: str
    """Its group `value`, or all of it, is the number."""
    check: Check


def us_ssn(found: bytes) -> bool:
    """No area 000, 666 or 9xx, no group 00, no serial 0000. Source: SSA, randomization of 2011."""
    digits = digits_of(found)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def uk_nino(found: bytes) -> bool:
    """No prefix that is not given out. Source: HMRC, NIM39110."""
    return compact(found)[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def de_steuer_id(found: bytes) -> bool:
    """One digit of the first ten twice or three times, and mod 11,10. Source: ISO/IEC 7064."""
    digits = digits_of(found)
    counts = sorted((digits[:10].count(d) for d in set(digits[:10])), reverse=True)
    if counts[0] not in (2, 3) or (len(counts) > 1 and counts[1] > 1):
        return False
    product = 10
    for digit in digits[:10]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def fr_nir(found: bytes) -> bool:
    """Key 97 - number mod 97; 2A and 2B are 19 and 18. Source: INSEE, numéro d'inscription."""
    text = compact(found).replace("2A", "19", 1).replace("2B", "18", 1)
    return text.isdigit() and 97 - int(text[:13]) % 97 == int(text[13:15])


def es_dni(found: bytes) -> bool:
    """Letter of the number mod 23, also of foreigners' X, Y and Z. Source: BOE, Orden INT/2058."""
    text = compact(found)
    number = text[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return number.isdigit() and DNI_LETTERS[int(number) % 23] == text[-1]


def it_codice_fiscale(found: bytes) -> bool:
    """Last letter by the sum of values of odd and even places."""
    text = compact(found)
    odd = sum(ODD_VALUES[c] for c in text[0:15:2])
    even = sum(int(c) if c.isdigit() else ord(c) - 65 for c in text[1:15:2])
    return chr(65 + (odd + even) % 26) == text[15]


def pl_pesel(found: bytes) -> bool:
    """A date with its century in the month, and the weighted sum."""
    digits = digits_of(found)
    if weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10:
        return False
    month = int(digits[2:4])
    century = {0: 1900, 1: 2000, 2: 2100, 3: 2200, 4: 1800}[month // 20]
    return date(century + int(digits[:2]), month % 20, int(digits[4:6]))


def br_cpf(found: bytes) -> bool:
    """Two digits, mod 11 each."""
    digits = digits_of(found)
    first = weighted(digits[:9], tuple(range(10, 1, -1))) * 10 % 11 % 10
    second = weighted(digits[:10], tuple(range(11, 1, -1))) * 10 % 11 % 10
    return len(set(digits)) > 1 and digits[9:] == f"{first}{second}"


def be_national(found: bytes) -> bool:
    """97 - number mod 97, with a 2 before it since 2000."""
    digits = digits_of(found)
    key = int(digits[9:])
    return any(97 - int(century + digits[:9]) % 97 == key for century in ("", "2"))


def se_personnummer(found: bytes) -> bool:
    """A date (or it and 60) and Luhn's digit."""
    digits = digits_of(found)[-10:]
    day = int(digits[4:6])
    return date(2000, int(digits[2:4]), day - 60 if day > 60 else day) and luhn(digits)


def ch_ahv(found: bytes) -> bool:
    """EAN-13's check digit."""
    digits = digits_of(found)
    return weighted(digits, (1, 3) * 6 + (1,)) % 10 == 0


def fi_hetu(found: bytes) -> bool:
    """A date and its letter, mod 31."""
    text = found.decode()
    number = int(text[:6] + text[7:10])
    return date(2000, int(text[2:4]), int(text[:2])) and HETU_LETTERS[number % 31] == text[10]


def nl_bsn(found: bytes) -> bool:
    """The eleven test."""
    digits = digits_of(found).zfill(9)
    return int(digits) > 0 and weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def ca_sin(found: bytes) -> bool:
    """Luhn's digit."""
    return luhn(digits_of(found))


def _named(words: str, number: str) -> str:
    """`number` a few characters behind one of `words`."""
    return rf"(?i:(?<![A-Za-z])(?:{words})(?![A-Za-z])[^\n\d]{{0,16}}?)(?P<value>{number})"


IDS = (
    NationalId("US", NINE, r"\d{3}(?P<s>[- ])\d{2}(?P=s)\d{4}", us_ssn),
    NationalId("US", ID_WORD, _named(r"ssn|social security(?: no\.?| number)?", r"\d{9}"), us_ssn),
    NationalId(
        "GB",
        LETTERED,
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]",
        uk_nino,
    ),
    NationalId("DE", ELEVEN, r"[1-9]\d \d{3} \d{3} \d{3}", de_steuer_id),
    NationalId(
        "DE", ID_WORD, _named(r"(?:steuer|id)[\w-]{0,20}|idnr|tin", r"[1-9]\d{10}"), de_steuer_id
    ),
    NationalId(
        "FR",
        THIRTEEN,
        r"[12378] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d",
        fr_nir,
    ),
    NationalId(
        "ES",
        LETTERED,
        r"(?:\d{8}|\d{2}\.\d{3}\.\d{3}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z]",
        es_dni,
    ),
    NationalId("IT", LETTERED, r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]", it_codice_fiscale),
    NationalId("PL", ELEVEN, r"\d{11}", pl_pesel),
    NationalId("BR", ELEVEN, r"\d{3}\.\d{3}\.\d{3}-\d\d", br_cpf),
    NationalId("BE", ELEVEN, r"\d\d\.\d\d\.\d\d-\d{3}[.-]\d\d", be_national),
    NationalId("SE", NINE, r"(?:19|20)?\d{6}[-+]\d{4}", se_personnummer),
    NationalId("CH", THIRTEEN, r"756\.\d{4}\.\d{4}\.\d\d", ch_ahv),
    NationalId("FI", NINE, r"[0-3]\d[01]\d{3}[-+ABCDEFYXWVU]\d{3}[0-9A-Y]", fi_hetu),
    NationalId("NL", ID_WORD, _named(r"bsn|burgerservicenummer|sofi-?nummer", r"\d{8,9}"), nl_bsn),
    NationalId(
        "CA",
        ID_WORD,
        _named(r"sin|social insurance(?: no\.?| number)?", r"\d{3}[ -]?\d{3}[ -]?\d{3}"),
        ca_sin,
    ),
)


def compiled(found: NationalId) -> re.Pattern[bytes]:
    """Its pattern, for bytes, between the ends of words."""
    named = "(?P<value>" in found.pattern
    before = "" if named else BEFORE
    return re.compile((before + found.pattern + AFTER).encode())
