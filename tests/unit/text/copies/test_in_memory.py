"""Copies among texts in memory: planted ones are found, others are not, threads change nothing."""

import numpy as np
import pytest

from megatron_jobs.text.copies.in_memory import find_copies
from megatron_jobs.text.copies.letters import make_shingles
from megatron_jobs.text.copies.methods import FingerprintSettings
from tests.unit.stages.copies import book_texts, planted_corpus


def test_planted_copies_are_found_as_often_as_they_should(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    records = planted_corpus(tmp_path_factory.mktemp("a") / "in", originals=600)
    texts = [record["text"] for record in records]
    labels = find_copies(texts, threads=2)
    place = {record["id"]: i for i, record in enumerate(records)}
    pairs = [(i, place[r["copy_of"]]) for i, r in enumerate(records) if "copy_of" in r]
    shingles = make_shingles(FingerprintSettings())
    alike = np.array([shingles.jaccard(texts[a], texts[b]) for a, b in pairs])
    expected = 1 - (1 - alike**8) ** 14
    found = sum(labels[a] == labels[b] for a, b in pairs)
    assert abs(found - expected.sum()) < 4 * np.sqrt((expected * (1 - expected)).sum())
    assert sum(labels != np.arange(len(texts))) == found  # and nothing else
    np.testing.assert_array_equal(labels, find_copies(texts, threads=1))


def test_methods_for_documents() -> None:
    text = book_texts()[5]
    texts = [text, "other words", text.upper(), "", text.replace("the", "a", 1), ""]
    assert find_copies(texts, FingerprintSettings(method="exact")).tolist() == [0, 1, 0, 3, 4, 5]
    near = FingerprintSettings(method="simhash", ngram=1)
    assert find_copies(texts, near).tolist() == [0, 1, 0, 3, 0, 5]
    assert find_copies([]).tolist() == []
