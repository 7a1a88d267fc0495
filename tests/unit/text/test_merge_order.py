import random
from itertools import pairwise

from megatron_jobs.text.merge_order import last_pair


def merged(text: str, ranks: dict[str, int]) -> list[str]:
    """Tiktoken's and SentencePiece's way, word for word: any neighbours that make a token."""
    parts = list(text)
    while True:
        ways = [
            (ranks[a + b], place) for place, (a, b) in enumerate(pairwise(parts)) if a + b in ranks
        ]
        if not ways:
            return parts
        place = min(ways)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def by_pairs(text: str, pairs: dict[tuple[str, str], int]) -> list[str]:
    """Hugging Face's way: only pairs of the list, in its order."""
    parts = list(text)
    while True:
        ways = [(pairs[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in pairs]
        if not ways:
            return parts
        place = min(ways)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def test_one_pair_a_token_merges_any_text_the_same() -> None:
    """Vocabularies of random strings, in random order, on random texts of two or three letters."""
    for seed in range(200):
        chooser = random.Random(seed)
        letters = "ab" if seed % 2 else "abc"
        tokens = {"".join(chooser.choices(letters, k=chooser.randrange(2, 6))) for _ in range(12)}
        order = chooser.sample(sorted(tokens), len(tokens))
        ranks = {token: place for place, token in enumerate(order)}
        pairs = {pair: ranks[t] for t in order if (pair := last_pair(t, ranks)) is not None}
        for _ in range(30):
            text = "".join(chooser.choices(letters, k=chooser.randrange(1, 25)))
            assert by_pairs(text, pairs) == merged(text, ranks), (seed, text)


def test_a_token_that_nothing_makes() -> None:
    assert last_pair("abc", {"abc": 0}) is None
    assert last_pair("abc", {"abc": 1, "bc": 0}) == ("a", "bc")
    assert last_pair(b"aaa", {b"aaa": 1, b"aa": 0}) == (b"aa", b"a")
    assert last_pair("a", {}) is None
