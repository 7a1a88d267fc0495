"""Mentions and what is near them, against a slow reading word by word; lists; readability."""

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.text.representation import (
    MentionCounter,
    Mentions,
    readability,
    sentences,
)
from megatron_jobs.text.word_lists import WordLists, read_word_lists

LISTS = WordLists(
    groups={
        "pronoun.he": ("he", "him"),
        "pronoun.she": ("she",),
        "people.koreans": ("korean", "north korean"),
        "people.north": ("north",),
    },
    tones={"bad": ("awful", "north wind", "very very bad"), "good": ("kind", "she")},
)
VOCABULARY = ["he", "him", "she", "korean", "north", "wind", "awful", "very", "bad", "kind", "tree"]


def slowly(text: str, window: int) -> tuple[Counter[str], Counter[str], Counter[str], Counter[str]]:
    """Groups, tones, words near and tones near, by looking at every word by itself."""
    found = re.findall(r"\w+", text.lower())
    mentions = []
    at = 0
    terms = {
        tuple(t.split()) for one in (LISTS.groups, LISTS.tones) for ts in one.values() for t in ts
    }
    while at < len(found):
        fits = [term for term in terms if tuple(found[at : at + len(term)]) == term]
        if fits:
            mentions.append((at, max(fits, key=len)))
        at += len(mentions[-1][1]) if fits else 1
    groups, tones, near_words, near_tones = Counter(), Counter(), Counter(), Counter()
    for _, term in mentions:
        groups.update(g for g, ts in LISTS.groups.items() if " ".join(term) in ts)
        tones.update(t for t, ts in LISTS.tones.items() if " ".join(term) in ts)
    for group, of_group in LISTS.groups.items():
        own = [(at, term) for at, term in mentions if " ".join(term) in of_group]
        inside = {at + i for at, term in own for i in range(len(term))}
        around = {
            place
            for place in range(len(found))
            if place not in inside
            and any(at - window <= place < at + len(term) + window for at, term in own)
        }
        near_words[group] = len(around)
        for tone, terms_of in LISTS.tones.items():
            hits = [at for at, term in mentions if " ".join(term) in terms_of and at in around]
            near_tones[f"{group}|{tone}"] = len(hits)
    return groups, tones, near_words, near_tones


@pytest.mark.parametrize("window", [1, 3, 10])
def test_equals_reading_word_by_word(window: int) -> None:
    draw = random.Random(window)
    counter = MentionCounter(LISTS, window=window)
    for _ in range(150):
        size = draw.choice([0, 1, 2, 7, 40])
        text = " ".join(draw.choice(VOCABULARY).title() + draw.choice(",. ") for _ in range(size))
        into = Mentions()
        assert len(counter.count(text, "d", into)) == into.words == size
        groups, tones, near_words, near_tones = slowly(text, window)
        assert (into.documents, Counter(into.groups), Counter(into.tones)) == (1, groups, tones)
        assert +Counter(into.near_words) == +near_words
        assert +Counter(into.near_tones) == +near_tones


def test_examples_do_not_depend_on_order() -> None:
    texts = [f"Stone {i}. He was awful that day, number {i}." for i in range(30)]
    counter = MentionCounter(LISTS, examples=3)
    whole, halves = Mentions(), [Mentions(), Mentions()]
    for place, text in enumerate(texts):
        counter.count(text, f"d{place}", whole)
    for place, text in reversed([*enumerate(texts)]):
        counter.count(text, f"d{place}", halves[place % 2])
    halves[1].add(halves[0], examples=3)
    assert halves[1].examples == whole.examples
    examples = whole.examples["pronoun.he|bad"]
    assert len(examples) == 3
    assert all(f"number {name[1:]}." in words for _, name, words in examples)


def test_lists_of_ones_own(tmp_path: Path) -> None:
    ours = read_word_lists()
    assert {name.partition(".")[0] for name in ours.groups} == {
        "pronoun", "gender", "nationality", "religion", "ethnicity", "disability", "age",
        "orientation",
    }  # fmt: skip
    (tmp_path / "more.yaml").write_text("groups: {religion: {Hindu: [Brahmin], Jain: [jain]}}")
    (tmp_path / "en").write_text("Damn\n\n🖕\ndarn it\n")
    found = read_word_lists([tmp_path / "more.yaml"], {"toxic": tmp_path / "en"})
    assert found.groups["religion.Hindu"] == (*ours.groups["religion.Hindu"], "brahmin")
    assert found.groups["religion.Jain"] == ("jain",)
    assert found.tones["toxic"] == ("damn", "🖕", "darn it")
    assert found.tones["negative"] == ours.tones["negative"]
    counter, into = MentionCounter(found), Mentions()
    counter.count("Damn! The Brahmin said: darn it.", "d", into)
    assert into.near_tones == {"religion.Hindu|toxic": 2}
    assert counter.without_words == ["🖕"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", r"found list, must hold groups, tones or both"),
        ("words: {a: [b]}", r"found words, must hold groups, tones or both"),
        ("groups: [a]", r"groups: found \['a'\], must be categories with groups"),
        ("groups: {a: {b: c}}", r"groups.a.b: found 'c', must be a list of strings"),
        ("tones: {b: [1]}", r"tones.b: found \[1\], must be a list of strings"),
        ("a: {", r"more.yaml: not YAML: "),
    ],
)
def test_what_is_no_list(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "more.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        read_word_lists([tmp_path / "more.yaml"])


def test_readability() -> None:
    text = 'He ran. "Did he?" asked Anna... Version 3.5 did, at last!'
    assert sentences(text) == 4
    assert sentences("no end") == sentences("") == 1
    assert readability(40, 10, 2) == pytest.approx(4.71 * 4 + 0.5 * 5 - 21.43)
