"""The kinds of personal data and secrets that are redacted: patterns over UTF-8 bytes, and checks.

To add one: a `Kind` with the traces (csrc/personal) at which its pattern is tried, and examples of
it in tests/unit/text/planted.py.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from megatron_jobs._personal import (
    AT_SIGN,
    COLONS,
    DOTTED,
    KEY_BLOCK,
    LETTERED,
    NINE,
    PHONE_WORD,
    SECRET_WORD,
    SEVEN,
    THIRTEEN,
    TOKEN,
)
from megatron_jobs.text import redact_checks as checks
from megatron_jobs.text.redact_ids import IDS, compiled

End = Callable[[bytes], int]
"""Bytes of a match's value that are what is looked for; 0 for none."""
WORD = rb"[A-Za-z0-9_\x80-\xff]"
SPACE = rb"(?:[ ./-]|\xc2\xa0|\xe2\x80[\xaf\x90\x91\x93])"
"""Between the digits of a telephone number; also spaces and dashes that do not break."""
NO_DOMAINS = rb"(?!(?:png|jpe?g|gif|svg|webp|css|mp4)\b)"
"""Ends of file names such as icon@2x.png."""


@dataclass(frozen=True)
class Kind:
    """One way that a kind of data is written."""

    name: str
    """What it is counted and replaced as; several patterns may share it."""
    traces: int
    """At which traces it is tried; a sum of _personal's constants."""
    pattern: re.Pattern[bytes]
    """Its group `value`, if it has one, is what is replaced."""
    end: End
    marks: tuple[bytes, ...] = ()
    """One of these must be near for the pattern to be tried at all."""


def _whole(check: Callable[[bytes], bool]) -> End:
    return lambda found: len(found) if check(found) else 0


def _kind(
    name: str,
    traces: int,
    pattern: bytes,
    check: Callable[[bytes], bool] = lambda found: True,
    *,
    flags: int = 0,
    marks: tuple[bytes, ...] = (),
) -> Kind:
    return Kind(name, traces, re.compile(pattern, flags), _whole(check), marks)


SECRETS = [
    _kind(
        "private_key",
        KEY_BLOCK,
        rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        rb"(?:.*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|[A-Za-z0-9+/=\s:,-]{0,4096})",
        flags=re.DOTALL,
    ),
    _kind(
        "secret",
        TOKEN,
        rb"(?<![A-Za-z0-9_])(?:A[KS]IA[0-9A-Z]{16}|gh[pousr]_[0-9A-Za-z]{36,}"
        rb"|github_pat_\w{22,}|glpat-[\w-]{20,}|sk-(?:proj-|ant-)?[\w-]{20,}"
        rb"|[sr]k_(?:live|test)_[0-9A-Za-z]{16,}|xox[abprs]-[0-9A-Za-z-]{10,}|AIza[\w-]{35}"
        rb"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}|ya29\.[\w-]{20,}|npm_[0-9A-Za-z]{36}"
        rb"|pypi-[\w-]{50,}|hf_[0-9A-Za-z]{30,}|SG\.[\w-]{16,}\.[\w-]{16,}"
        rb"|dop_v1_[0-9a-f]{64}|shpat_[0-9a-fA-F]{32}|gsk_[0-9A-Za-z]{40,}|whsec_[\w+/=]{24,})"
        rb"(?![A-Za-z0-9_])",
        checks.random_token,
    ),
    _kind(
        "secret",
        SECRET_WORD,
        rb"(?i:secret|passw(?:or)?d|pwd|api[_-]?key|access[_-]?key|auth(?:[_-]?token)?|token"
        rb"|credentials?|client[_-]?secret)[\"']?\]?\s{0,3}(?::=|=>|[:=])\s{0,3}[\"'`]?"
        rb"(?:[Bb]earer\s+)?(?P<value>[A-Za-z0-9_+/.~-]{16,}={0,2})",
        checks.chance_token,
    ),
    _kind(
        "secret",
        SECRET_WORD,
        rb"(?<![A-Za-z])[Bb]earer\s{1,3}(?P<value>[A-Za-z0-9_+/.~-]{20,}={0,2})",
        checks.chance_token,
    ),
    _kind(
        "url_credentials",
        AT_SIGN,
        rb"(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]{1,20}://"
        rb"(?P<value>[^\s:/@<>\"']{0,100}:[^\s/@<>\"']{1,200})@",
        marks=(b"://",),
    ),
]

EMAIL = _kind(
    "email",
    AT_SIGN,
    rb"(?<![A-Za-z0-9_.+\x80-\xff-])(?!git@)(?:mailto:)?"
    rb"(?P<value>[A-Za-z0-9_\x80-\xff][A-Za-z0-9_.%+'\x80-\xff-]{0,63}"
    rb"@(?:[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]{0,62}[A-Za-z0-9\x80-\xff])?\.){1,8}"
    + NO_DOMAINS
    + rb"(?:[A-Za-z]{2,24}|xn--[a-z0-9-]{2,30}))(?![A-Za-z0-9\x80-\xff]|-[A-Za-z0-9])",
)

NUMBERED = [
    Kind(
        "iban",
        LETTERED,
        re.compile(rb"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?:[ -]?[A-Z0-9]){11,30}"),
        checks.iban_end,
    ),
    _kind(
        "card",
        THIRTEEN,
        rb"(?<![A-Za-z0-9.-])(?:\d{4}([ -]?)\d{4}\1\d{4}\1\d{2,4}(?:\1\d{1,3})?"
        rb"|\d{4}([ -]?)\d{6}\2\d{4,5}|\d{13})(?![A-Za-z0-9]|[.-]\d)",
        checks.card,
    ),
    *(Kind("national_id", found.traces, compiled(found), _whole(found.check)) for found in IDS),
]

PHONES = [
    _kind(
        "phone",
        SEVEN,
        rb"(?<![A-Za-z0-9.+])(?:\+|(?<!\d{4} )00(?=[1-9]\d{0,2}[ ./-]))[1-9]\d{0,2}" + SPACE
        + rb"?(?:\(0?\d{0,4}\)" + SPACE + rb"?)?\d(?:" + SPACE
        + rb"?\d){5,13}(?!\d|" + SPACE + rb"\d)",
        checks.phone,
        marks=(b"+", b"00"),
    ),
    _kind(  # North America: area and exchange never begin with 0 or 1
        "phone",
        NINE,
        rb"(?<![A-Za-z0-9.+-])(?:1[ .-])?(?:\([2-9]\d\d\)[ -]?|[2-9]\d\d[ .-])[2-9]\d\d[ .-]\d{4}"
        rb"(?![A-Za-z0-9]|[.-]\d)",
    ),
    _kind(  # France, if the pairs are no more than five; Britain
        "phone",
        NINE,
        rb"(?<![A-Za-z0-9.+-])(?:(?<![0-9A-Fa-f]{2}[ ])0[1-9](?:" + SPACE
        + rb"\d\d){4}(?!\s{1,2}[0-9A-Fa-f]{2}(?![0-9A-Za-z]))"
        rb"|(?:\((?=0\d{2,4}\)))?0(?:[12]\d\)? \d{4} \d{4}|[1238]\d\d\)? \d{3} \d{4}"
        rb"|[123]\d{3}\)? \d{6}|[123]\d{3}\)? \d{3} \d{3}|7\d{3} \d{6}|7\d{3} \d{3} \d{3}))"
        rb"(?![A-Za-z0-9]|[.-]\d)",
    ),
    _kind(  # anywhere, when a word says so
        "phone",
        PHONE_WORD,
        rb"(?i:(?<![a-z])(?:tele?(?:phone?|fon[oa]?|fax)?|t\xc3\xa9l(?:\xc3\xa9phone)?|tlf|phone|fon"
        rb"|fax|mobile?|mob|cell|cellulare|handy|m\xc3\xb3vil|call|whatsapp|sms|portable|dial)"
        rb"(?![a-z]))[ .:#-]{0,3}(?i:(?:us|me|number|no|nr|at|is|on|n\xc2\xb0)[ .:]{1,2}){0,3}"
        rb"(?P<value>[(+]?\d(?:" + SPACE + rb"?[()]?" + SPACE + rb"?\d){6,14})(?![A-Za-z0-9])",
        checks.some_digits,
    ),
]  # fmt: skip


def addresses(*, private: bool) -> list[Kind]:
    """IPv4 and IPv6; also addresses that are not routed with `private`."""
    return [
        _kind(
            "ip",
            DOTTED,
            rb"(?<![A-Za-z0-9.])(?<![Vv]ersion )(?<![Rr]elease )(?<![Vv]er\. )(?<![Vv]\. )"
            rb"(?<![Vv] )(?<!-)(?:\d{1,3}\.){3}\d{1,3}(?![A-Za-z0-9_]|\.\d|-\d)",
            partial(checks.ipv4, private=private),
        ),
        _kind(
            "ip",
            COLONS,
            rb"(?<![A-Za-z0-9:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![A-Za-z0-9:]|\.\d)",
            partial(checks.ipv6, private=private),
        ),
    ]


ORDER = (
    "private_key",
    "secret",
    "url_credentials",
    "email",
    "iban",
    "card",
    "national_id",
    "ip",
    "phone",
)
"""Kinds, the surer first: of two that overlap the earlier is taken."""


def kinds_of(names: tuple[str, ...], *, private_ips: bool) -> list[Kind]:
    """All patterns of the kinds, in ORDER."""
    every = [*SECRETS, EMAIL, *NUMBERED, *addresses(private=private_ips), *PHONES]
    return [kind for name in ORDER if name in names for kind in every if kind.name == name]
