"""The fast look for personal data: it lets nothing pass that a pattern would take."""

import ipaddress
import random
import string
from collections.abc import Iterator

import pytest

from megatron_jobs import _personal
from megatron_jobs._personal import find_traces
from megatron_jobs.text.redact import Redactor, RedactRules
from tests.unit.text.planted import BEHIND_WORDS, EXAMPLES, draws

FILLING = "Words that hold nothing of anybody, é and 漢字, go on. "


def found_everywhere(text: str) -> list[tuple[str, int, int]]:
    """What the patterns take when all are tried on all of the text."""
    redactor = Redactor(RedactRules())
    every = sum(kind for name, kind in vars(_personal).items() if name.isupper())
    data = text.encode()
    found = {
        (one.kind, one.begin, one.end) for one in redactor._of_traces(data, [(every, 0, len(data))])
    }
    return sorted(found)


def covered(text: str) -> list[tuple[str, int, int]]:
    redactor = Redactor(RedactRules())
    data = text.encode()
    return sorted(
        {(one.kind, one.begin, one.end) for one in redactor._of_traces(data, find_traces(text))}
    )


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_a_pattern_takes_is_passed_over(seed: int) -> None:
    draw = random.Random(seed)
    values = list(draws(draw, 30))
    draw.shuffle(values)
    for kind, before, value in values:
        tail = "@host/x" if kind == "url_credentials" else " "
        lead = FILLING[: draw.randint(0, len(FILLING))] + " "
        text = f"{lead}{before}{value}{tail}{FILLING}"
        wanted = [one for one in found_everywhere(text) if one[0] == kind]
        assert wanted, value
        assert set(wanted) <= set(covered(text)), value


def random_values(draw: random.Random) -> Iterator[str]:
    """Values as programs draw them: also those that happen to have hardly a digit."""
    signs = string.ascii_letters + string.digits
    for prefix, size in (("ghp_", 36), ("sk-", 24), ("xoxb-", 24), ("hf_", 34), ("npm_", 36)):
        yield prefix + "".join(draw.choices(signs, k=size))
    yield "AKIA" + "".join(draw.choices(string.ascii_uppercase + string.digits, k=16))
    for before in ("api_key = ", "password: ", '"token" => "', "Authorization: Bearer "):
        yield before + "".join(draw.choices(signs + "+/", k=24))
    yield str(ipaddress.IPv6Address((0x2A02 << 112) | draw.getrandbits(112)))
    for word in ("Tél. ", "TÉL : ", "Handy "):
        yield word + "123 45 67"
    for dash in ("\u2010", "\u2011", "\u2013", "\u202f", "\u00a0"):
        yield dash.join(("+1", "212", "555", f"{draw.randrange(10**4):04}"))


def test_no_random_value_is_passed_over() -> None:
    draw = random.Random(5)
    found = 0
    for _ in range(400):
        for value in random_values(draw):
            wanted = found_everywhere(f"here is {value} for you")
            assert wanted == covered(f"here is {value} for you"), value
            found += bool(wanted)
    assert found > 400 * 18 * 0.97
    assert covered("a_" * 40 + "token = KeyOfSomethingElse, RefreshTokenProviderFactory") == []


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000])
def test_values_at_any_place(size: int) -> None:
    """Whole blocks without a digit are passed over at once: none with one may be."""
    for kind, values in EXAMPLES.items():
        text = "x" * size + " " + values[0]
        assert kind in {one[0] for one in covered(text)}, (kind, size)
        text = "x" * size + " " + values[-1] + " " + "y" * size
        assert kind in {one[0] for one in covered(text)}, (kind, size)


def test_prose_has_no_traces() -> None:
    text = (FILLING * 50) + "In 1998 and 1999, on 12.5.03 at 10:45, 1200 came; e-mail, AKIA, sk-."
    assert find_traces(text) == []


def test_where_traces_are() -> None:
    text = "é write to jo@example.org or dial 030/12345678"
    (at, begin, end), (number, first, last) = find_traces(text)
    data = text.encode()
    assert at == _personal.AT_SIGN
    assert data[begin:end] == b"jo@example.org"
    assert number == sum((_personal.SEVEN, _personal.NINE, _personal.ELEVEN, _personal.PHONE_WORD))
    assert data[first:last].endswith(b"dial 030/12345678")
    assert find_traces("") == []
    assert {kind for kind, _ in BEHIND_WORDS.items()} <= {"phone", "national_id", "url_credentials"}
