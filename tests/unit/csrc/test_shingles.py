"""Shingles, MinHash, SimHash and spans against slow obvious versions."""

import json
import random
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs._copies import Shingles, nearness, utf8_sizes
from megatron_jobs.text.copies.letters import (
    Normalisation,
    ShingleSettings,
    letter_table,
    make_shingles,
)
from megatron_jobs.text.copies.methods import block_masks

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"
BOOK = "\n".join(json.loads(line)["text"] for line in BOOKS.read_text().splitlines())
TEXTS = [BOOK[i : i + 50 + i % 3000] for i in range(0, 60_000, 1009)]
STRANGE = "Ünïcode—Test: 3.14159, 2024! 你好世界 ἀρχή İstanbul e\u0301t 한국어 ١٢٣ x\u00a0y\u200bz"
STRANGE += "ﬁn ẞ 𝐀 🙂"
MASK = 2**64 - 1


def slow_normalise(text: str) -> str:
    """FineWeb's steps, one after the other."""
    folded = []
    for letter in text:
        found = letter.lower() if unicodedata.category(letter)[0] == "L" else letter
        bare = [c for c in unicodedata.normalize("NFD", found) if unicodedata.category(c) != "Mn"]
        if not bare:
            continue  # an accent alone
        found = bare[0] if len(bare) == 1 else letter
        kind = unicodedata.category(found)
        folded.append("0" if kind == "Nd" else found if kind[0] in "LNM" else " ")
    return re.sub("0+", "0", " ".join("".join(folded).split()))


def test_letters_are_folded_as_step_by_step() -> None:
    shingles = make_shingles(ShingleSettings())
    for text in [STRANGE, BOOK[:20_000], "", "...", "a", "A1b22", "  x  ", "e\u0301" * 40]:
        assert shingles.normalise(text) == slow_normalise(text)


def test_every_letter_of_unicode_is_folded_so() -> None:
    shingles = make_shingles(ShingleSettings())
    for point in [*range(0x3000), *range(0xA000, 0xD800, 7), *range(0xE000, 0x2A6DF, 13)]:
        text = f"a{chr(point)}b"
        assert shingles.normalise(text) == slow_normalise(text), hex(point)


def test_nothing_is_folded_but_space() -> None:
    rules = Normalisation(lower_case=False, punctuation=False, digits=False, accents=False)
    shingles = make_shingles(ShingleSettings(normalisation=rules))
    assert shingles.normalise(" Éa!  12\n(x)\t") == "Éa! 12 (x)"


def word_sets(text: str, n: int) -> set[tuple[str, ...]]:
    words = slow_normalise(text).split()
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))} if words else set()


def slow_jaccard(a: str, b: str, n: int) -> float:
    one, other = word_sets(a, n), word_sets(b, n)
    return len(one & other) / len(one | other) if one | other else 0.0


def test_a_word_is_all_its_letters_and_nothing_beside() -> None:
    shingles = make_shingles(ShingleSettings(ngram=1, longest_words=1000))
    hashes = set()
    for size in range(1, 50):
        word = "abcdefghij" * 5
        words = [word[:size], *(word[:at] + "x" + word[at + 1 : size] for at in range(size))]
        hashes |= {int(value) for value in shingles.of(" ".join(words))}
        for between in (" ", "\0", "  zyx "):
            assert shingles.of(word[:size] + between + "other")[0] == shingles.of(word[:size])[0]
    assert len(hashes) == sum(size + 1 for size in range(1, 50))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_similarity_is_that_of_sets_of_words(n: int) -> None:
    shingles = make_shingles(ShingleSettings(ngram=n))
    drawn = random.Random(1)
    for text in [*TEXTS[:20], "one two", "one", ""]:
        words = text.split(" ")
        changed = " ".join("other" if drawn.random() < 0.05 else word for word in words)
        for other in (changed, text[: len(text) // 2], text):
            assert shingles.jaccard(text, other) == slow_jaccard(text, other, n)


def test_texts_without_spaces_are_cut_by_letters() -> None:
    shingles = make_shingles(ShingleSettings(letters_ngram=3))
    text = "今天天气很好我们去公园散步吧然后一起吃晚饭看电影"
    assert len(shingles.of(text)) == len(text) - 2
    other = text.replace("公园", "学校")
    sets = [{t[i : i + 3] for i in range(len(t) - 2)} for t in (text, other)]
    wanted = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert shingles.jaccard(text, other) == wanted
    assert len(make_shingles(ShingleSettings(longest_words=1000)).of(text)) == 1


def random_words(seed: int, count: int) -> list[int]:
    """SplitMix64."""
    found = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        found.append(z ^ z >> 31)
    return found


@pytest.mark.parametrize(("bands", "rows"), [(14, 8), (1, 1), (5, 13), (3, 16), (2, 17)])
def test_signatures_are_the_least_of_each_permutation(bands: int, rows: int) -> None:
    shingles = make_shingles(ShingleSettings())
    _, signatures, sizes = shingles.minhash(TEXTS[:9], bands=bands, rows=rows, seed=7)
    drawn = np.array(random_words(7, 2 * bands * rows), np.uint64).astype(np.uint32)
    for text, signature, size in zip(TEXTS[:9], signatures, sizes, strict=True):
        values = shingles.of(text).astype(np.uint32)
        assert len(values) == size
        permuted = values[:, None] * (drawn[::2] | 1) + drawn[1::2]
        permuted ^= permuted >> 15
        np.testing.assert_array_equal(signature, (permuted.min(0) & 255).astype(np.uint8))


def test_threads_and_company_change_nothing() -> None:
    shingles = make_shingles(ShingleSettings())
    whole = shingles.minhash(TEXTS, bands=14, rows=8, seed=1, threads=4)
    for place, text in enumerate(TEXTS):
        alone = shingles.minhash([text], bands=14, rows=8, seed=1)
        assert all(np.array_equal(a[place], b[0]) for a, b in zip(whole, alone, strict=True))


MACHINES = ("plain", "sse4.1", "avx2", "avx512")


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    """The code for each machine, where this one can run it."""
    name: str = request.param
    try:
        make_shingles(ShingleSettings(), machine=name)
    except ValueError as error:
        pytest.skip(f"{name}: {error}")
    return name


def mixed_texts() -> list[str]:
    """Texts of all lengths up to 300: ASCII of all kinds, digits beside each other and across the
    ends of vectors, letters beyond ASCII here and there."""
    drawn = random.Random(11)
    ascii_letters = [chr(point) for point in range(128)]
    texts = []
    for size in range(300):
        words = drawn.choices([*"abcXYZ", " "], k=size)
        for _ in range(drawn.choice([0, 0, 1, 9])):
            place = drawn.randrange(size + 1)
            words[place:place] = drawn.choice([["12", "3"], ["é"], ["7"], ["你好"], ["\u0301"]])
        texts.append("".join(words))
        texts.append("".join(drawn.choices(ascii_letters, k=size)))
    ends = [(lead, gap) for lead in range(130) for gap in (16, 32, 64)]
    return [*texts, *("a" * lead + "1" + "b" * gap + "23" for lead, gap in ends)]


def test_machines_fold_as_step_by_step(machine: str) -> None:
    shingles = make_shingles(ShingleSettings(), machine=machine)
    for text in [*mixed_texts(), STRANGE, BOOK[:5000]]:
        assert shingles.normalise(text) == slow_normalise(text)
    bare = Normalisation(lower_case=False, punctuation=False, digits=False, accents=False)
    whole = make_shingles(ShingleSettings(normalisation=bare), machine=machine)
    for text in mixed_texts():
        printed = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
        assert whole.normalise(text) == " ".join(printed.split())


def test_machines_give_the_same(machine: str) -> None:
    wanted, found = (make_shingles(ShingleSettings(), machine=m) for m in ("plain", machine))
    texts = [*TEXTS, *mixed_texts(), STRANGE, "你好世界" * 30]
    masks = block_masks(5, 3)
    for bands, rows in ((14, 8), (1, 1), (3, 16), (13, 5)):
        both = [s.minhash(texts, bands=bands, rows=rows, seed=2) for s in (wanted, found)]
        assert all(np.array_equal(a, b) for a, b in zip(*both, strict=True))
    both = [s.simhash(texts, masks=masks) for s in (wanted, found)]
    assert all(np.array_equal(a, b) for a, b in zip(*both, strict=True))
    for text in texts:
        assert shingles_count(text) == len(found.of(text))


def shingles_count(text: str) -> int:
    """Runs of five words, or of ten letters where words are longer than 20 on average."""
    words = slow_normalise(text).split()
    letters = sum(map(len, words))
    pieces, size = (len(words), 5) if letters <= 20 * len(words) else (letters, 10)
    return max(pieces - size + 1, min(pieces, 1))


def test_estimates_scatter_about_the_similarity_as_they_should() -> None:
    """112 values of 8 bits: no bias, a standard error of sqrt(J (1 - J) / 112)."""
    shingles = make_shingles(ShingleSettings())
    drawn = random.Random(5)
    pairs, wanted = [], []
    for place in range(400):
        start = drawn.randrange(len(BOOK) - 4000)
        text = BOOK[start : start + 3000]
        words = text.split(" ")
        share = place / 4000
        other = " ".join("gamma" if drawn.random() < share else word for word in words)
        pairs += [text, other]
        wanted.append(shingles.jaccard(text, other))
    _, signatures, _ = shingles.minhash(pairs, bands=14, rows=8, seed=3)
    rows = np.arange(800, dtype=np.int64).reshape(-1, 2)[:, ::-1].copy()
    found = nearness(signatures, rows, measure="minhash")
    truth = np.array(wanted)
    expected = np.sqrt((truth * (1 - truth)).mean() / 112)
    assert abs((found - truth).mean()) < 4 * expected / np.sqrt(400)
    assert 0.8 * expected < (found - truth).std() < 1.25 * expected


def test_two_texts_share_a_key_when_a_band_agrees() -> None:
    shingles = make_shingles(ShingleSettings())
    keys, signatures, _ = shingles.minhash(TEXTS[:2] * 2, bands=4, rows=2, seed=1)
    np.testing.assert_array_equal(keys[0], keys[2])
    assert len(set(keys[:2].ravel().tolist())) == 8  # bands are told apart
    assert signatures.shape == (4, 8)


def test_simhash_is_the_majority_of_bits() -> None:
    shingles = make_shingles(ShingleSettings(ngram=2))
    masks = block_masks(5, 3)
    assert len(masks) == 10
    assert sum(int(mask).bit_count() for mask in masks) == 4 * 64  # each bit: one of 4 partners
    values, keys, _ = shingles.simhash(TEXTS[:20], masks=masks, threads=2)
    for place, text in enumerate(TEXTS[:20]):
        features = shingles.of(text).tolist()
        wanted = sum(
            1 << bit for bit in range(64) if 2 * sum(f >> bit & 1 for f in features) > len(features)
        )
        assert int(values[place]) == wanted
    for i in range(20):
        for j in range(i):
            same = [(int(values[i] ^ values[j]) & int(mask)) == 0 for mask in masks]
            assert (keys[i] == keys[j]).tolist() == same


SPANS = "First one. Second one?  Third (3.5) one!\nA line\n\n\nA 2nd paragraph。又一句！end"


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("line", ["First one. Second one?  Third (3.5) one!\n", "A line\n\n\n",
                  "A 2nd paragraph。又一句！end"]),
        ("paragraph", ["First one. Second one?  Third (3.5) one!\nA line\n\n\n",
                       "A 2nd paragraph。又一句！end"]),
        ("sentence", ["First one. ", "Second one?  ", "Third (3.5) one!\n", "A line\n\n\n",
                      "A 2nd paragraph。", "又一句！", "end"]),
    ],
)  # fmt: skip
def test_spans_are_the_whole_text_in_pieces(kind: str, wanted: list[str]) -> None:
    shingles = make_shingles(ShingleSettings())
    hashes, places, ends = shingles.spans([SPANS, "", "end"], kind=kind, least=1)
    pieces = [SPANS.encode()[a:b].decode() for a, b in places[: ends[0]].tolist()]
    assert pieces == wanted
    assert ends.tolist() == [len(wanted), len(wanted), len(wanted) + 1]
    alone, _ = shingles.text_hashes(wanted)
    np.testing.assert_array_equal(hashes[: ends[0]], alone)


def test_sizes_are_those_of_utf8() -> None:
    texts = [*TEXTS[:5], STRANGE, "", "é" * 7]
    assert utf8_sizes(texts).tolist() == [len(text.encode()) for text in texts]


def test_short_spans_do_not_count() -> None:
    shingles = make_shingles(ShingleSettings())
    _, places, _ = shingles.spans(["One.\nTwo and a half\n- - -\n"], kind="line", least=5)
    assert places.tolist() == [[5, 20]]


def test_arguments_are_named() -> None:
    table = letter_table(Normalisation())
    with pytest.raises(ValueError, match="table must hold 131072 code points, got 5"):
        Shingles(table[:5].copy(), words=5, letters=5, longest=9)
    with pytest.raises(ValueError, match="words must be at least 1, got 0"):
        Shingles(table, words=0, letters=5, longest=9)
    shingles = make_shingles(ShingleSettings())
    with pytest.raises(ValueError, match="texts must be strings or bytes, got int at 1"):
        shingles.text_hashes(["a", 1])  # type: ignore[list-item]
    with pytest.raises(UnicodeEncodeError):
        shingles.text_hashes(["\ud800"])
    with pytest.raises(ValueError, match="kind must be line, paragraph or sentence, got word"):
        shingles.spans([], kind="word", least=1)
    with pytest.raises(ValueError, match=r"plain, sse4\.1, avx2 or avx512, got neon"):
        make_shingles(ShingleSettings(), machine="neon")
    with pytest.raises(ValueError, match="bands and rows must be from 1 to 65536, got 0 and 8"):
        shingles.minhash([], bands=0, rows=8, seed=1)
