"""Texts with personal data whose places are known, and with much that only looks like it.

Values are published examples, or drawn with check digits computed here, apart from the code under
test. Tokens are put together when they are needed: as they stand, no scanner takes them for real.
"""

import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

EXAMPLES: dict[str, tuple[str, ...]] = {
    "email": (
        "jane.doe@example.com", "j+news@mail.example.co.uk", "o'brien@example.ie",
        "müller@exämple.de", "a_b-c@sub.domain.museum", "x@y.io", "root@xn--bcher-kva.example.org",
        "FIRST.LAST@EXAMPLE.ORG", "user%host@relay.example.net",
    ),
    "phone": (
        "+1 415 555 2671", "+1 (415) 555-2671", "+1-415-555-2671", "+14155552671",
        "+44 20 7946 0958", "+44 (0)20 7946 0958", "+49 (0)30 901820", "+49 30 90182-0123",
        "+33 1 23 45 67 89", "+33\u00a01\u00a023\u00a045\u00a067\u00a089", "+39 06 6982 1234",
        "+81-3-1234-5678", "+91 98765 43210", "+358 40 123 4567", "0044 20 7946 0958",
        "(415) 555-2671", "415-555-2671", "415.555.2671", "1-800-555-0199", "01 23 45 67 89",
        "01.23.45.67.89", "020 7946 0958", "(020) 7946 0958", "0121 496 0123", "01632 960123",
        "07700 900123",
    ),
    "ip": (
        "93.184.216.34", "151.101.1.69", "185.199.108.153", "2001:4860:4860::8888",
        "2606:2800:220:1:248:1893:25c8:1946", "2a00:1450:4001:81b::200e",
    ),
    "iban": (
        "GB82 WEST 1234 5698 7654 32", "GB82WEST12345698765432", "DE89 3704 0044 0532 0130 00",
        "DE89370400440532013000", "FR14 2004 1010 0505 0001 3M02 606", "NL91ABNA0417164300",
        "NO93 8601 1117 947", "MT84 MALT 0110 0001 2345 MTLC AST0 01S", "BE68 5390 0754 7034",
        "ES91 2100 0418 4502 0005 1332", "CH93 0076 2011 6238 5295 7",
    ),
    "card": (
        "4111 1111 1111 1111", "4111111111111111", "5555-5555-5555-4444", "5500 0000 0000 0004",
        "3782 822463 10005", "340000000000009", "6011000000000004", "3530111333300000",
        "30569309025904", "4222222222222", "6304000000000000",
    ),
    "national_id": (
        "078-05-1120", "219 09 9999", "AB 12 34 56 C", "JG103759A", "86 095 742 719",
        "2 55 08 14 168 025 38", "255081416802538", "12345678Z", "X1234567L", "RSSMRA85T10A562S",
        "44051401359", "02070803628", "529.982.247-25", "111.444.777-35", "85.07.30-033.28",
        "811228-9874", "19811228-9874", "756.9217.0769.85", "131052-308T",
    ),
}  # fmt: skip

BEHIND_WORDS: dict[str, tuple[tuple[str, str], ...]] = {
    "phone": (
        ("Tel.: ", "030/12345678"), ("Telefon: ", "089 1234567"), ("phone: ", "5551234567"),
        ("Tél. : ", "05 55 12 34 56"), ("Tel. ", "91 123 45 67"), ("call me at ", "555 867 5309"),
        ("Fax ", "0815 47114711"), ("mobile: ", "612 345 678"),
    ),
    "national_id": (
        ("SSN: ", "219099999"), ("Steuer-ID: ", "86095742719"), ("IdNr. ", "47036892816"),
        ("BSN ", "111222333"), ("SIN: ", "046 454 286"),
    ),
    "url_credentials": (
        ("https://", "user:s3cret"), ("postgres://", "admin:pa55word"), ("ftp://", "anon:x@y"[:6]),
    ),
}  # fmt: skip
"""(what stands before, value): found only there."""

INNOCENT = (
    "version 1.2.3.4 of it", "v2.10.15.1", "release 10.15.7.1", "see 3.2.1.4 there",
    "on 2021-03-04 12:34:56", "Mon, 26 Aug 2002 15:13:56 +0100", "26.08.2002 15:13",
    "ISBN 978-3-16-148410-0", "ISBN 0-306-40615-2", "9783161484100",
    "commit da39a3ee5e6b4b0d3255bfef95601890afd80709", "index 83db48f..bf2a9c1 100644",
    "at 192.168.1.1 here", "10.0.0.1", "127.0.0.1", "fe80::1", "2001:db8::1", "::1",
    "4111 1111 1111 1112", "1234 5678 9012 3456", "DE89370400440532013001", "12345678A",
    "000-12-3456", "666-12-3456", "123-45-0000", "order 1234567890", "1609459200123",
    "3.14159265358979", "icon@2x.png", "git@github.com:org/repo", "left-pad@1.3.0", "@decorator",
    "1,234,567,890", "std::vector<int>", "00:1A:2B:3C:4D:5E",
    "123e4567-e89b-12d3-a456-426614174000", "pages 100-200", "0x7fff5fbff8c8",
    "from 10:30:00 to 11:45:30", "$1,000,000.00", "doi:10.1000/182", "AS15169", "1998 and 1999",
    "RFC 2822", "CVE-2021-44228", "#1234567", "2^31 - 1 = 2147483647", "12 345 678 901 items",
    "https://example.com/a/b?c=1", "x86_64-linux-gnu", "user@localhost", "0000000000000000",
    "123456-1234", "111.111.111-11", "ZZ123456A", "token = None", "password: ********",
    "api_key = os.environ['API_KEY']", "0123456789abcdef0123456789abcdef", "1.000.000.000",
    "555-1234", "+12", "1e-05", "756.1234.5678.90",
)  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """A value and where it stands, in characters."""

    kind: str
    begin: int
    value: str


def luhn_digit(digits: str) -> str:
    """The digit behind them, by adding up pairs."""
    doubled = [int(d) * 2 for d in digits[::-1][::2]]
    total = sum(sum(map(int, str(d))) for d in doubled) + sum(int(d) for d in digits[::-1][1::2])
    return str(-total % 10)


def draw_card(draw: random.Random) -> str:
    prefix, size = draw.choice([("4", 16), ("52", 16), ("2345", 16), ("37", 15), ("6011", 16)])
    body = prefix + "".join(draw.choices(string.digits, k=size - 1 - len(prefix)))
    digits = body + luhn_digit(body)
    groups = [digits[:4], digits[4:10], digits[10:]] if size == 15 else [
        digits[i : i + 4] for i in range(0, 16, 4)]  # fmt: skip
    return draw.choice(["", " ", "-"]).join(groups)


def draw_iban(draw: random.Random) -> str:
    country, size = draw.choice([("DE", 18), ("AT", 16), ("PL", 24), ("PT", 21)])
    body = "".join(draw.choices(string.digits, k=size))
    letters = "".join(str(ord(c) - 55) for c in country)
    check = 98 - int(body + letters + "00") % 97
    whole = f"{country}{check:02d}{body}"
    return draw.choice([whole, " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))])


def draw_email(draw: random.Random) -> str:
    def word() -> str:
        return "".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 9)))

    name = draw.choice(["{}", "{}.{}", "{}_{}", "{}+{}", "{}-{}"]).format(word(), word())
    return f"{name}@{word()}.{draw.choice(['com', 'org', 'net', 'co.uk', 'de', 'info'])}"


def draw_phone(draw: random.Random) -> str:
    form = draw.choice([
        "+1 {a}{d}{d} {a}{d}{d} {d}{d}{d}{d}", "({a}{d}{d}) {a}{d}{d}-{d}{d}{d}{d}",
        "{a}{d}{d}-{a}{d}{d}-{d}{d}{d}{d}", "+49 1{d}{d} {d}{d}{d}{d}{d}{d}{d}",
        "+34 6{d}{d} {d}{d}{d} {d}{d}{d}", "+44 7{d}{d}{d} {d}{d}{d}{d}{d}{d}",
        "0{a} {d}{d} {d}{d} {d}{d} {d}{d}", "+55 {a}{a} 9{d}{d}{d}{d}-{d}{d}{d}{d}",
    ])  # fmt: skip
    form = form.replace("{a}", "A").replace("{d}", "D")
    return "".join(
        draw.choice("23456789") if c == "A" else draw.choice(string.digits) if c == "D" else c
        for c in form
    )


def draw_ip(draw: random.Random) -> str:
    if draw.random() < 0.5:
        groups = [draw.choice([0, 0, 9, draw.randrange(65536)]) for _ in range(6)]
        long = ":".join(f"{group:x}" for group in (0x2A00 + draw.randrange(16), *groups, 0xDEAD))
        return draw.choice([long, long.upper(), str(IPv6Address(long))])
    first = draw.choice([23, 45, 66, 81, 104, 142, 185, 203, 212])
    rest = [draw.randint(10, 250) for _ in range(3)]
    if first == 203:
        rest[0] = 5
    return ".".join(str(part) for part in [first, *rest])


def draw_token(draw: random.Random) -> str:
    letters = string.ascii_letters + string.digits
    prefix, alphabet, size = draw.choice([
        ("AKI" + "A", string.ascii_uppercase + string.digits, 16), ("gh" + "p_", letters, 36),
        ("sk" + "-proj-", letters, 40), ("xox" + "b-", string.digits + "abc", 24),
        ("AI" + "za", letters, 35), ("hf" + "_", letters, 34), ("glp" + "at-", letters, 20),
    ])  # fmt: skip
    return prefix + "7" + "".join(draw.choices(alphabet, k=size - 2)) + "3b"[alphabet[0] == "0"]


DRAWN = {
    "card": draw_card, "iban": draw_iban, "email": draw_email, "phone": draw_phone, "ip": draw_ip,
    "secret": draw_token,
}  # fmt: skip


def private_key(draw: random.Random) -> str:
    """A block of such a shape; the letters mean nothing."""
    body = "\n".join("".join(draw.choices(string.ascii_letters, k=64)) for _ in range(5))
    mark = "PRIVATE " + "KEY"
    return f"-----BEGIN RSA {mark}-----\n{body}\n-----END RSA {mark}-----"


def draws(draw: random.Random, count: int) -> Iterator[tuple[str, str, str]]:
    """(kind, what stands before, value): all examples, then `count` drawn of each kind."""
    for kind, values in EXAMPLES.items():
        yield from ((kind, "", value) for value in values)
    for kind, pairs in BEHIND_WORDS.items():
        yield from ((kind, before, value) for before, value in pairs)
    yield "private_key", "", private_key(draw)
    for name in ("api_key", "client_secret", "AUTH_TOKEN"):
        value = "".join(draw.choices(string.ascii_letters + string.digits, k=30)) + "x7Y"
        yield "secret", f'{name} = "', value
    for kind, make in DRAWN.items():
        yield from ((kind, "", make(draw)) for _ in range(count))


def plant(sentences: list[str], *, seed: int = 0, count: int = 40) -> tuple[str, list[Planted]]:
    """A text of the sentences, with all values and all that is innocent between them."""
    draw = random.Random(seed)
    inserts = [*draws(draw, count), *(("", "", text) for text in INNOCENT)]
    draw.shuffle(inserts)
    text, found = "", []
    for kind, before, value in inserts:
        lead, tail = draw.choice(
            [(" ", ". "), (" (", ") "), (": ", ", "), (" <", "> "), ("\n", "\n")]
        )
        if kind == "url_credentials":
            tail = "@db.internal/x" + tail
        elif before.endswith('"'):
            tail = '"' + tail
        text += draw.choice(sentences) + lead + before
        if kind:
            found.append(Planted(kind, len(text), value))
        text += value + tail
    return text, found
