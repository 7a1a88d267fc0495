"""What filters count, against slow obvious versions."""

import random
import re
import unicodedata
from collections import Counter

import pytest

from megatron_jobs._filters import (
    Characters,
    Phrases,
    Words,
    kind_counts,
    line_ends,
    line_shapes,
    repeats,
)
from megatron_jobs.text.filters.characters import SYMBOL, TERMINAL, characters, expand

SYMBOLS = set(expand(SYMBOL + TERMINAL))
ENDS = set(expand(TERMINAL))


def random_words(seed: int) -> list[str]:
    """Some tens of words, of which few are different."""
    draw = random.Random(seed)
    known = ["a", "ab", "b", "ba", "c.", "—", "…", "?", "42", "ßé", "中", "\ud800"]
    return [draw.choice(known) for _ in range(draw.choice([0, 1, 2, 3, 7, 40, 97]))]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        (" \n\t ", []),
        ("One, two; three.", "One|,|two|;|three|."),
        ("(It's “quoted” text)", "(|It|'s|“|quoted|”|text|)"),
        ("isn’t don't we'll they've I'd", "is|n’t|do|n't|we|'ll|they|'ve|I|'d"),
        ("Dr. Smith of the U.S. spoke, e.g. here.", "Dr.|Smith|of|the|U.S.|spoke|,|e.g.|here|."),
        ("wait... what?!", "wait|...|what|?|!"),
        ("an e-mail to a.b@c-d.org, now", "an|e|-|mail|to|a.b@c-d.org|,|now"),
        ("see https://a.b/c-d?e=f.", "see|https://a.b/c-d?e=f|."),
        ("1,000.50 and 3-4 or 5%", "1,000.50|and|3|-|4|or|5|%"),
        ("the end.Start here", "the|end|.|Start|here"),
        ("either/or a=b", "either|/|or|a|=|b"),
        ("----- == ~~~", "-----|=|=|~~~"),
        ("你好，世界。", "你|好|，|世|界|。"),
        ("हिन्दी में लिखा।", "हिन्दी|में|लिखा|।"),
        ("a\u0301b e\u0301", "a\u0301b|e\u0301"),
    ],
)
def test_words(text: str, wanted: str | list[str]) -> None:
    expected = wanted.split("|") if isinstance(wanted, str) else wanted
    assert Words(text, characters()).listed() == expected


def test_words_lose_nothing_but_space() -> None:
    draw = random.Random(3)
    signs = "aB9é中.,'-…/:@()\"’&%+ \n\u3000\ud800\U0001f600\0"
    for _ in range(300):
        text = "".join(draw.choice(signs) for _ in range(draw.randrange(60)))
        words = Words(text, characters())
        assert "".join(words.listed()) == "".join(text.split())
        assert len(words) == len(words.listed())


@pytest.mark.parametrize("seed", range(40))
def test_kinds_of_words(seed: int) -> None:
    listed = random_words(seed)
    words = Words.given(listed, characters())
    assert words.listed() == listed
    solid = [word for word in listed if set(word) - SYMBOLS]
    assert (words.solid, words.solid_characters) == (len(solid), sum(map(len, solid)))
    assert words.alphabetic == sum(any(map(str.isalpha, word)) for word in listed)


def top_run(words: list[str], n: int) -> int:
    runs = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    if not runs:
        return -1
    run, times = max(runs.items(), key=lambda pair: pair[1])  # the first of equals
    return len(run) * times


def repeated_runs(words: list[str], n: int) -> int:
    seen: set[str] = set()
    place = found = 0
    while place + n <= len(words):
        run = "".join(words[place : place + n])
        found += len(run) if run in seen else 0
        place += n if run in seen else 1
        seen.add(run)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_runs_of_words(seed: int) -> None:
    listed = random_words(seed)
    words = Words.given(listed, characters())
    for n in (1, 2, 3, 5, 10):
        assert words.top_run(n) == top_run(listed, n), n
        assert words.repeated_runs(n) == repeated_runs(listed, n), n


@pytest.mark.parametrize("seed", range(40))
def test_phrases(seed: int) -> None:
    listed = [word for word in random_words(seed) if word != "c."]  # which would be cut in two
    words = Words.given(listed, characters())
    wanted = ["a", "ab b", "b a b", "42", "never there", ""]
    phrases = [phrase.split() for phrase in wanted if phrase]
    places = [
        range(i, i + len(phrase))
        for phrase in phrases
        for i in range(len(listed))
        if listed[i : i + len(phrase)] == phrase
    ]
    found = Phrases(wanted, characters())
    assert words.covered(found) == len({i for place in places for i in place})
    present = {tuple(listed[i] for i in place) for place in places}
    assert words.present(found) == len(present)


def test_sentences() -> None:
    def count(text: str) -> int:
        return Words(text, characters()).sentences()

    texts = ("", "no end", "One. Two! Three?", "He said “no.” Then left.")
    assert [count(text) for text in texts] == [0, 1, 3, 2]
    assert count("Dr. Smith went. He came back... then left?!") == 2
    assert count("我来了。他走了！") == 2


@pytest.mark.parametrize("seed", range(30))
def test_lines(seed: int) -> None:
    draw = random.Random(seed)
    parts = ["- a", "• b", "c...", "d …  ", "", "  ", "e.", "f", "中。", "\r", "\u2028", "g\x85"]
    text = "".join(draw.choice(parts) + draw.choice(["\n", "\n\n", "\r\n", " "]) for _ in range(25))
    lines = text.splitlines()
    assert line_shapes(text, characters()) == (
        len(lines),
        sum(line.lstrip().startswith(("-", "•")) for line in lines),
        sum(line.rstrip().endswith(("...", "…")) for line in lines),
    )
    for breaks in (1, 2):
        cut = re.split("\n" * breaks + "+", text)
        again = [part for i, part in enumerate(cut) if part in cut[:i]]
        assert repeats(text, breaks=breaks) == (len(cut), len(again), sum(map(len, again)))
    solid = [line for line in text.split("\n") if line.strip()]
    again = [line for i, line in enumerate(solid) if line in solid[:i]]
    assert line_ends(text, characters(), brief=2) == (
        len(solid),
        sum(line[-1] in ENDS for line in solid),
        sum(len(line) <= 2 for line in solid),
        sum(map(len, again)),
        text.count("\n"),
    )


def test_kinds_of_characters() -> None:
    text = "".join(map(chr, range(0x2FFF))) + "中\U0001f600\ud800"
    assert kind_counts(text, characters()) == (
        sum(map(str.isspace, text)),
        sum(unicodedata.category(c)[0] in "LM" for c in text),
        sum(map(str.isupper, text)),
        sum(map(str.isdecimal, text)),
        sum(unicodedata.category(c).startswith("P") for c in text),
    )


@pytest.mark.parametrize("window", [1, 2, 5, 100])
def test_different_words_in_windows(window: int) -> None:
    for seed in range(30):
        words = random_words(seed)
        width = min(window, len(words))
        starts = range(len(words) - width + 1) if words else []
        shares = [len(set(words[at : at + width])) / width for at in starts]
        found = Words.given(words, characters()).distinct_share(window)
        assert found == pytest.approx(sum(shares) / max(len(shares), 1), abs=1e-12)


def test_messages() -> None:
    words = Words("a", characters())
    with pytest.raises(ValueError, match=r"^window must be at least 1, got 0$"):
        words.distinct_share(0)
    for call in (words.top_run, words.repeated_runs):
        with pytest.raises(ValueError, match=r"^n must be at least 1, got 0$"):
            call(0)
    with pytest.raises(ValueError, match=r"^breaks must be at least 1, got 0$"):
        repeats("a", breaks=0)
    with pytest.raises(ValueError, match=r"^kinds must hold mark$"):
        Characters({})
    with pytest.raises(ValueError, match=r"^words must hold strings, got <class 'int'>$"):
        Words.given(["a", 1], characters())  # type: ignore[list-item]
