"""Words of a text: the same hash for what counts as one word, however it is written."""

import re

import numpy as np
import pytest

from megatron_jobs._ngrams import gram_buckets, word_hashes

WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
GOLDEN = [
    "0xcb3ff435b889fb31",
    "0x98e25a302c6eb1d4",
    "0x7f41efbf9cab99da",
    "0xc1e42af088ff1b2c",
    "0x19cf27745dac68df",
    "0xba0814a17bc1f048",
]
GOLDEN_BUCKETS = [15172, 21128, 34156, 39138, 52031, 60843]
ALONE = re.compile(r"([\u3001-\u9fff])")


def slow_words(text: str) -> list[str]:
    """Words of text without characters that only the fast way folds, such as curly quotes."""
    spaced = ALONE.sub(r" \1 ", text.lower())
    return [re.sub(r"\d", "0", word) for word in WORD.findall(spaced)]


TEXTS = [
    "",
    " \n\t",
    "The cat, the CAT's hat_1 -- 27 times!",
    "Größe GRÖSSE größe Ärger ärger Привет ПРИВЕТ Ёлка ёлка ΑΒΓ αβγ Łódź łódź",
    "今日は 東京 tower 2024年",
    "a\u00a0b\u2003c\u3000d",
    "x=1;y=22;z=333",
    "mixed東京text",
]


@pytest.mark.parametrize("text", TEXTS)
def test_equal_words_have_equal_hashes(text: str) -> None:
    reference = " ".join(TEXTS)
    known = dict(zip(slow_words(reference), word_hashes(reference).tolist(), strict=True))
    assert len(set(known.values())) == len(known)
    assert word_hashes(text).tolist() == [known[word] for word in slow_words(text)]


def test_signs_that_are_one() -> None:
    assert (
        word_hashes("don\u2019t \u201cgo\u201d \u2014").tolist()
        == word_hashes('don\'t "go" -').tolist()
    )


def test_emoji_and_signs_stand_alone() -> None:
    assert len(word_hashes("ab\U0001f600cd\u20ac5")) == 5


def test_lines_end_where_they_have_words() -> None:
    ends = word_hashes("\n\na b\n \nc", lines=True) == 0
    assert ends.tolist() == [False, False, True, False, True]


def test_plain_words_are_what_stands_between_spaces() -> None:
    assert len(word_hashes("The cat's 2 hats", folded=False)) == 4
    a, b = word_hashes("The the", folded=False)
    assert a != b


def test_hashes_stay_what_they_are() -> None:
    """A model that was trained knows them; a change needs a new WORDS_VERSION."""
    assert [hex(h) for h in word_hashes("The cat, 7 Ärger 東")] == GOLDEN
    assert gram_buckets("The cat sat", bits=16, order=3).tolist() == GOLDEN_BUCKETS


def test_buckets_are_of_all_grams() -> None:
    for order in (1, 2, 3, 5):
        found = gram_buckets("a b c d", bits=20, order=order)
        assert len(found) == sum(max(0, 4 - n) for n in range(order))
        assert np.all(np.diff(found.astype(np.int64)) >= 0)
        assert found.max() < 2**20
    assert len(gram_buckets("a b c d", bits=20, order=1, limit=3)) == 2


def test_what_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match=r"^bits must be from 8 to 28, got 7$"):
        gram_buckets("a", bits=7, order=1)
    with pytest.raises(ValueError, match=r"^order must be from 1 to 5, got 6$"):
        gram_buckets("a", bits=8, order=6)
    with pytest.raises(ValueError, match=r"^limit must be at least 1, got 0$"):
        gram_buckets("a", bits=8, order=1, limit=0)
