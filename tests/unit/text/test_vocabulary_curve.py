import pytest

from megatron_jobs.text.byte_pairs import train_byte_pairs
from megatron_jobs.text.split_patterns import GPT2
from megatron_jobs.text.vocabulary_curve import END, curve, cut_vocabulary, suggest
from tests.multilingual import SENTENCES, corpus


def test_a_cut_vocabulary_is_the_one_that_is_trained_so() -> None:
    largest = train_byte_pairs(corpus(), vocab_size=1200, special=[END], least_count=2)
    for size in (257, 300, 777, 1200):
        trained = train_byte_pairs(corpus(), vocab_size=size, special=[END], least_count=2)
        assert cut_vocabulary(largest, size).to_str() == trained.to_str()


def test_bytes_per_token_by_size() -> None:
    held_out = list(SENTENCES.values())
    found = curve(corpus(), held_out, sizes=(600, 300, 10**6), pattern=GPT2)
    assert list(found) == [300, 600]  # the texts do not give a million
    trained = train_byte_pairs(corpus(), vocab_size=600, special=[END], least_count=2)
    tokens = sum(len(trained.encode(text).ids) for text in held_out)
    assert found[600] == sum(len(text.encode()) for text in held_out) / tokens
    assert found[300] < found[600]


@pytest.mark.parametrize(
    ("found", "gain", "size"),
    [
        ({}, 0.1, None),
        ({4: 2.0, 8: 3.0, 16: 3.1, 32: 3.2}, 0.1, 8),
        ({4: 2.0, 8: 3.0, 16: 4.0}, 0.1, 16),
        ({4: 2.0, 16: 2.3}, 0.1, 4),  # two doublings of 7 %
        ({4: 2.0, 16: 2.5}, 0.1, 16),
    ],
)
def test_the_size_whose_doubling_gains_little(
    found: dict[int, float], gain: float, size: int | None
) -> None:
    assert suggest(found, least_gain=gain) == size
