"""Sums by name in bounded memory; years and domains of what is odd."""

from dataclasses import asdict

import orjson
import pytest

from megatron_jobs.text import composition
from megatron_jobs.text.composition import (
    Composition,
    CompositionCounter,
    Tally,
    domain_of,
    year_of,
)
from megatron_jobs.text.record import Record
from megatron_jobs.text.representation import MentionCounter
from megatron_jobs.text.word_lists import WordLists


def test_a_tally_holds_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composition, "NAMES", 10)
    tally = Tally()
    for number in range(1000):
        tally.put(f"n{number}", 1 + 100 * (number < 5))
    assert len(tally.counts) <= 21
    assert {f"n{i}" for i in range(5)} <= set(tally.counts)
    assert tally.rest + sum(tally.counts.values()) == 1500
    tally.put("x" * 1000, 1)
    assert max(map(len, tally.counts)) == 200


def test_counts_of_parts_add_up_to_those_of_all() -> None:
    counter = CompositionCounter(
        MentionCounter(WordLists({"a.b": ("he",)}, {}), examples=2), ["en"]
    )
    records = [
        Record(str(i), f"He said {'naïve ' * i}so. And é!", "s", "MIT", "en" if i % 3 else "fr",
               f"https://www.a{i % 2}.org:80/x?{i}", f"200{i}-01-01")
        for i in range(7)
    ]  # fmt: skip
    whole, halves = Composition(), [Composition(), Composition()]
    for place, record in enumerate(records):
        counter.count(record, whole)
        counter.count(record, halves[place % 2])
    parts = [Composition.of(orjson.loads(orjson.dumps(asdict(half)))) for half in halves]
    parts[0].add(parts[1])
    assert parts[0] == whole
    size = {r.id: len(r.text.encode()) for r in records}
    assert whole.bytes == sum(size.values())
    assert whole.domains.counts == {
        f"a{i}.org": sum(size[r.id] for r in records if int(r.id) % 2 == i) for i in (0, 1)
    }
    english = [r for r in records if r.language == "en"]
    assert whole.mentions.documents == whole.mentions.groups["a.b"] == len(english)
    letters = sum(c.isalpha() for r in english for c in r.text)
    assert (whole.letters, whole.sentences) == (letters, 2 * len(english))


def test_years_and_domains() -> None:
    dates = ["2024-05-01T00:00:00Z", "1999", "199", "19990101", "about 1850", "", "٢٠٢٤-01"]
    assert [year_of(date) for date in dates] == ["2024", "1999", "", "", "", "", ""]
    urls = ["HTTPS://WWW.Example.ORG:8080/a", "http://a.b./x", "http://[::1", "no address", ""]
    assert [domain_of(url) for url in urls] == ["example.org", "a.b", "", "", ""]
