"""A sample by hash: the same for any order of the documents, and within its limit."""

import random

import numpy as np

from megatron_jobs.text.hashed_sample import HashedSample, is_held_out, text_key


def sample_of(texts: list[str], limit: int) -> HashedSample:
    sample = HashedSample(limit)
    for text in texts:
        key = text_key(text)
        if sample.wants(key):
            sample.add(key, np.zeros(len(text), np.uint32))
    return sample


def test_the_order_of_documents_does_not_matter() -> None:
    texts = [f"{i:03}" + "x" * (i % 7) for i in range(500)]
    whole = sample_of(texts, 10**6)
    assert (len(whole), whole.share, whole.duplicates) == (500, 1, 0)
    some = [key for key, _ in sample_of(texts, 800).sorted()]
    random.Random(0).shuffle(texts)
    other = sample_of(texts, 800)
    assert [key for key, _ in other.sorted()] == some
    assert 0 < other.items <= 800
    assert other.share == 0.25
    assert set(some) == {key for key, _ in whole.sorted() if key < 2**62}


def test_equal_texts_are_one() -> None:
    sample = sample_of(["a", "b", "a", "a"], 10)
    assert (len(sample), sample.duplicates) == (2, 2)
    sample.remove(text_key("a"))
    sample.remove(text_key("never there"))
    assert (len(sample), sample.items, text_key("b") in sample) == (1, 1, True)


def test_one_document_over_the_limit_stays() -> None:
    assert len(sample_of(["a long text"], 3)) == 1


def test_held_out_is_a_share_and_grows_with_it() -> None:
    keys = [text_key(str(i)) for i in range(20000)]
    held = {share: {k for k in keys if is_held_out(k, share)} for share in (0.0, 0.05, 0.1, 1.0)}
    assert not held[0.0]
    assert held[0.05] < held[0.1]
    assert held[1.0] == set(keys)
    assert 1800 < len(held[0.1]) < 2200
    low = {k for k in keys if k < 2**62}  # what two halvings leave
    assert 0.08 < len(low & held[0.1]) / len(low) < 0.12
