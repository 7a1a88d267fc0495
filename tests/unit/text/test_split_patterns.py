import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.text.split_patterns import (
    GPT2,
    PATTERNS,
    byte_level_splitter,
    pattern_in,
    pattern_of,
)


def words(pattern: str, text: str) -> list[str]:
    return [
        text[start:end] for _, (start, end) in byte_level_splitter(pattern).pre_tokenize_str(text)
    ]


def test_digits_stand_alone() -> None:
    for name in PATTERNS:
        pattern = pattern_of(name, single_digits=True)
        assert words(pattern, "a 123 b4") == ["a", " ", "1", "2", "3", " b", "4"], name
    assert words(GPT2, "a 123 b4") == ["a", " 123", " b", "4"]
    assert words(PATTERNS["cl100k"], "12345 I'M") == ["123", "45", " I", "'M"]
    with pytest.raises(UserError, match=r"single_digits: found no .* in the pattern '\\\\S\+'"):
        pattern_of(r"\S+", single_digits=True)


def test_a_pattern_is_found_again() -> None:
    for pattern in (*PATTERNS.values(), r"\S+|\s+"):
        assert pattern_in(byte_level_splitter(pattern)) == pattern
    assert pattern_in(None) is None


def test_patterns_that_mean_something_else_here_are_refused() -> None:
    with pytest.raises(UserError, match=r"pattern: found '\{1,3\}\+', which repeats twice here"):
        byte_level_splitter(r"\p{N}{1,3}+|\P{N}++")
    with pytest.raises(UserError, match=r"pattern: found '\(', which is no pattern"):
        byte_level_splitter("(")
