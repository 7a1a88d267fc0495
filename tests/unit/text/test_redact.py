"""Redaction: recall and precision on planted values, replacements."""

import re
from itertools import pairwise
from typing import Any

import pytest

from megatron_jobs.text.redact import Redactor, RedactRules, pseudonym, with_hash
from tests.unit.text.planted import DRAWN, EXAMPLES, INNOCENT, plant

SENTENCES = [
    "The committee met on Tuesday and agreed on little",
    "She walked along the river until dusk",
    "In 1998 the company had 1200 workers",
    "Es war einmal ein König, der hatte drei Söhne",
    "It is said that nothing was lost",
]


def redact(text: str, **rules: Any) -> str:
    return Redactor(RedactRules(**rules)).redact(text)[0]


@pytest.mark.parametrize("seed", range(4))
def test_all_that_is_planted_is_found_and_nothing_else(seed: int) -> None:
    text, planted = plant(SENTENCES, seed=seed, count=40)
    found = {
        (one.kind, one.begin, one.value.decode()) for one in Redactor(RedactRules()).find(text)
    }
    wanted = {(p.kind, len(text[: p.begin].encode()), p.value) for p in planted}
    assert wanted - found == set()
    assert found - wanted == set()
    assert {p.kind for p in planted} == {*EXAMPLES, *DRAWN, "private_key", "url_credentials"}


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact(f"Before {text} behind.") == f"Before {text} behind."


def test_the_rest_of_the_text_stays_as_it_is() -> None:
    text, planted = plant(SENTENCES, seed=9, count=5)
    redacted = redact(text)
    parts, at = [], 0
    for one in sorted(planted, key=lambda p: p.begin):
        parts += [re.escape(text[at : one.begin]), "<[A-Z_]+>"]
        at = one.begin + len(one.value)
    assert re.fullmatch("".join([*parts, re.escape(text[at:])]), redacted)


def test_placeholders() -> None:
    text = "Write to jo@example.org or +1 415 555 2671."
    assert redact(text) == "Write to <EMAIL> or <PHONE>."
    assert redact(text, placeholders={"email": "[mail]"}) == "Write to [mail] or <PHONE>."
    assert redact(text, kinds=("phone",)) == "Write to jo@example.org or <PHONE>."
    url = "git clone https://jo:geheim12@example.org/x"
    assert redact(url) == "git clone https://<CREDENTIALS>@example.org/x"


def test_equal_values_have_equal_hashes() -> None:
    text = "a@b.org, A@B.org, c@d.org; +1 415 555 2671 and +1-415-555-2671"
    found = re.findall(r"<\w+:([0-9a-f]{8})>", redact(text, style="hash", key=b"k" * 16))
    assert len(found) == 5
    assert found[0] == found[1] != found[2]
    assert found[3] == found[4]
    assert found[0] not in redact(text, style="hash", key=b"l" * 16)
    assert pseudonym(b"", "email", b"a") != pseudonym(b"", "phone", b"a")
    assert with_hash("XX", "1f") == "XX:1f"
    assert with_hash("<X>", "1f") == "<X:1f>"


def test_addresses_of_private_networks() -> None:
    text = "192.168.1.1, 10.0.0.1, fe80::1, 0.0.0.0"
    assert redact(text) == text
    assert redact(text, private_ips=True) == "<IP>, <IP>, <IP>, 0.0.0.0"


def test_values_that_stay() -> None:
    text = "info@example.org and jo@example.org"
    assert redact(text, keep=(r"info@.*",)) == "info@example.org and <EMAIL>"
    assert redact(text, keep=(r".*@example\.org",)) == text


def test_own_patterns_come_first() -> None:
    rules = {"patterns": {"ticket": r"TCK-\d+", "room": r"room (?P<value>\d+)"}}
    assert redact("TCK-4155552671 in room 12", **rules) == "<TICKET> in room <ROOM>"
    assert redact("TCK-415-555-2671", patterns={"ticket": r"TCK-[\d-]+"}) == "<TICKET>"


def test_nothing_overlaps_and_many_are_fast() -> None:
    text = "mailto:a@b.org?cc=c@d.org 4111 1111 1111 1111 4111111111111111 " * 2000
    found = Redactor(RedactRules()).find(text)
    assert len(found) == 8000
    assert all(a.end <= b.begin for a, b in pairwise(found))


def test_text_of_any_kind() -> None:
    for text in ("", "\x00" * 100, "@" * 5000, "1" * 5000, ":" * 5000, "é@é.é", "+" * 3000):
        assert isinstance(redact(text), str)
    assert redact("😀 jo@example.org 😀") == "😀 <EMAIL> 😀"


def test_an_unfinished_key_goes_to_its_last_line() -> None:
    mark = "PRIVATE " + "KEY"
    assert redact(f"a -----BEGIN {mark}-----\nabc\ndef==") == "a <PRIVATE_KEY>"
    public = "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----"
    assert redact(public) == public
