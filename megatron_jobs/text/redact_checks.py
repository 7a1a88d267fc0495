"""What tells a number of people from any other: check digits, ranges, dates.

Each check takes the characters that a pattern has found, ASCII bytes, and says whether they hold.
"""

import datetime
import ipaddress
import itertools
import re

ASSIGNED = """
1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63
64 65 66 81 82 84 86 90 91 92 93 94 95 98 211 212 213 216 218 220 221 222 223 224 225 226 227
228 229 230 231 232 233 234 235 236 237 238 239 240 241 242 243 244 245 246 248 249 250 251
252 253 254 255 256 257 258 260 261 262 263 264 265 266 267 268 269 290 291 297 298 299 350
351 352 353 354 355 356 357 358 359 370 371 372 373 374 375 376 377 378 380 381 382 383 385
386 387 389 420 421 423 500 501 502 503 504 505 506 507 508 509 590 591 592 593 594 595 596
597 598 599 670 672 673 674 675 676 677 678 679 680 681 682 683 685 686 687 688 689 690 691
692 800 808 850 852 853 855 856 870 880 881 882 883 886 888 960 961 962 963 964 965 966 967
968 970 971 972 973 974 975 976 977 979 992 993 994 995 996 998
"""
CALLING_CODES = frozenset(ASSIGNED.split())
"""Of countries and services. Source: ITU-T E.164, list of assigned country codes."""

IBAN_SIZES = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28,
    "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23,
    "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20,
    "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30,
    "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
    "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23,
    "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""Characters of a country's IBAN. Source: SWIFT, IBAN registry."""


def digits_of(found: bytes) -> str:
    """Only its digits."""
    return "".join(chr(byte) for byte in found if 48 <= byte <= 57)


def compact(found: bytes) -> str:
    """Only its letters and digits, in capitals."""
    return "".join(chr(byte) for byte in found if chr(byte).isalnum() and byte < 128).upper()


def luhn(digits: str) -> bool:
    """Whether the last digit is right. Source: ISO/IEC 7812-1, annex B."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def card(found: bytes) -> bool:
    """A card number: of a known issuer, of its length, Luhn's digit right, not one digit only.

    Source: ranges of Visa, Mastercard, American Express, Discover, Diners, JCB, UnionPay, Maestro.
    """
    digits = digits_of(found)
    return len(digits) in _card_sizes(digits) and len(set(digits)) > 1 and luhn(digits)


def _card_sizes(digits: str) -> tuple[int, ...]:
    """Lengths that the issuer's numbers have; none for no issuer."""
    two, four = int(digits[:2]), int(digits[:4])
    three, six = int(digits[:3]), int(digits[:6])
    ranges = (
        (digits[0] == "4", (13, 16, 19)),
        (51 <= two <= 55 or 2221 <= four <= 2720, (16,)),
        (two in (34, 37), (15,)),
        (four == 6011 or two == 65 or 644 <= three <= 649, (16, 17, 18, 19)),
        (two in (36, 38, 39) or 300 <= three <= 305, (14,)),
        (3528 <= four <= 3589, (16,)),
        (two == 62 or 810000 <= six <= 817199, (16, 17, 18, 19)),
        (four in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763), (16, 17, 18, 19)),
    )
    return next((sizes for holds, sizes in ranges if holds), ())


def iban_end(found: bytes) -> int:
    """Bytes of `found` that are an IBAN, of its country's length and remainder; 0 for none.

    Source: ISO 13616-1, ISO/IEC 7064 mod 97-10.
    """
    size = IBAN_SIZES.get(found[:2].decode("ascii", "replace"), 0)
    taken = ""
    for place, byte in enumerate(found):
        if chr(byte).isalnum():
            taken += chr(byte)
        if size and len(taken) == size:
            turned = taken[4:] + taken[:4]
            holds = int("".join(str(int(c, 36)) for c in turned)) % 97 == 1
            rest = found[place + 1 : place + 2]
            return place + 1 if holds and not rest.isalnum() else 0
    return 0


def ipv4(found: bytes, *, private: bool) -> bool:
    """An address of a machine that is reached from anywhere (or any but 0.0.0.0).

    Four small numbers are rather a version, or a section.
    """
    parts = found.split(b".")
    if any(int(part) > 255 or (len(part) > 1 and part[:1] == b"0") for part in parts):
        return False
    if all(int(part) < 32 for part in parts) and not (private and parts[0] == b"10"):
        return False
    address = ipaddress.IPv4Address(found.decode())
    return not address.is_unspecified if private else _is_reached(address)


def ipv6(found: bytes, *, private: bool) -> bool:
    """An address that is reached from anywhere, all of which begin with 2 or 3; or any but ::."""
    try:
        address = ipaddress.IPv6Address(found.decode())
    except ValueError:
        return False
    if private:
        return not address.is_unspecified
    return found[:1] in b"23" and b":" in found.strip(b":") and _is_reached(address)


def _is_reached(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not address.is_multicast


def phone(found: bytes) -> bool:
    """With a + or 00: a known country, and 8 to 15 digits in all."""
    digits = digits_of(found).removeprefix("00")
    known = any(digits[:size] in CALLING_CODES for size in (1, 2, 3))
    return known and 8 <= len(digits) <= 15


def some_digits(found: bytes) -> bool:
    """A number said to be a telephone's: 7 to 15 digits that are not all one."""
    digits = digits_of(found)
    return 7 <= len(digits) <= 15 and len(set(digits)) > 2


def date(year: int, month: int, day: int) -> bool:
    """Whether there was such a day."""
    try:
        datetime.date(year, month, day)
    except ValueError:
        return False
    return True


def weighted(digits: str, weights: tuple[int, ...]) -> int:
    """Sum of digits times weights."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def chance_token(found: bytes) -> bool:
    """Whether a value that only a word announces is random, and no name such as KeyOfSomething.

    The fast look (csrc/personal, looks_random) goes by the same: digits among letters, or changes
    between small letters, capitals and digits at nearly every second place.
    """
    kinds = [kind for c in found if (kind := _kind_of(c))]
    digits = kinds.count(3)
    pairs = list(itertools.pairwise(kinds))
    turns = sum((a == 3) != (b == 3) for a, b in pairs)
    changes = sum(a != b for a, b in pairs)
    mixed = digits >= 2 and len(kinds) - digits >= 4 and turns >= 3
    return (mixed or 20 * changes >= 9 * len(kinds)) and random_token(found)


def _kind_of(c: int) -> int:
    """3 for a digit, 2 for a capital, 1 for a small letter, else 0."""
    char = chr(c)
    if not char.isascii() or not char.isalnum():
        return 0
    return 3 if char.isdigit() else 2 if char.isupper() else 1


def random_token(found: bytes) -> bool:
    """Whether a value looks made by chance: many different characters, of two kinds and more."""
    kinds = sum(bool(re.search(kind, found)) for kind in (rb"[a-z]", rb"[A-Z]", rb"[0-9]"))
    return kinds >= 2 and len(set(found)) >= min(10, len(found) // 2)
