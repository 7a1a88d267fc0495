"""Models of n-grams in ARPA's text format, as KenLM, SRILM and others write them.

Source: ngram-format(5) of SRILM: sections of lines `log10 p <tab> words [<tab> log10 back-off]`.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._ngrams import GramScorer, fill_table, gram_keys, word_hashes
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.perplexity import FIRST_WORD, TextScorer

SPECIAL = {"<unk>": 0, "<UNK>": 0, "<s>": 1, "</s>": 2}
NO_UNKNOWN = -100.0
"""log10 p of an unknown word in a model without <unk>, as KenLM takes it."""
MAX_ORDER = 5


def load_arpa(path: Path) -> TextScorer:
    """What scores texts by an .arpa or .arpa.gz; words are what stands between white space.

    Raises: UserError for a model of more than 5 words, DataError for what is no such file.
    """
    with _open(path) as file:
        lines = (line.rstrip("\r\n") for line in file)
        counts = _read_counts(lines, path)
        if len(counts) > MAX_ORDER:
            raise UserError(f"{path}: found {len(counts)}-grams, at most {MAX_ORDER} can be read")
        try:
            return _read_model(lines, counts).score_text
        except (ValueError, KeyError, IndexError, StopIteration) as error:
            raise DataError(f"{path}: found a damaged ARPA file: {error!r}") from error


def _open(path: Path) -> IO[str]:
    if path.name.endswith(".gz"):
        return cast(IO[str], gzip.open(path, "rt", encoding="utf-8", errors="replace"))
    return path.open(encoding="utf-8", errors="replace", newline="\n")


def _read_counts(lines: Iterator[str], path: Path) -> list[int]:
    """N-grams by order, from `ngram N=COUNT` lines up to the first section."""
    counts = []
    for line in lines:
        if line.startswith("ngram "):
            counts.append(int(line.partition("=")[2]))
        elif line == "\\1-grams:" and counts:
            return counts
    raise DataError(f"{path}: found no \\1-grams: section, no ARPA file has none")


def _read_model(lines: Iterator[str], counts: list[int]) -> GramScorer:
    numbers, singles = _read_singles(lines, counts[0])
    tables = []
    for order in range(2, len(counts) + 1):
        _skip_to(lines, f"\\{order}-grams:")
        tables.append(_read_table(lines, counts[order - 1], order, numbers))
    known = [word for word in numbers if word not in SPECIAL]
    hashes = word_hashes("\n".join(known), folded=False)
    places = np.array([numbers[word] for word in known], dtype=np.uint64)
    return GramScorer(
        singles.reshape(-1), tables, vocabulary=fill_table(hashes, places), folded=False
    )


def _skip_to(lines: Iterator[str], wanted: str) -> None:
    while next(lines) != wanted:
        pass


def _read_singles(lines: Iterator[str], count: int) -> tuple[dict[str, int], NDArray[np.float32]]:
    """Each word's number, and [vocabulary, 2] weights."""
    numbers = dict(SPECIAL)
    weights = [[NO_UNKNOWN, 0.0], [NO_UNKNOWN, 0.0], [NO_UNKNOWN, 0.0]]
    for _ in range(count):
        log_p, words, *back_off = next(lines).split("\t")
        if words not in numbers:
            numbers[words] = len(weights)
            weights.append([0.0, 0.0])
        weights[numbers[words]] = [float(log_p), float(back_off[0]) if back_off else 0.0]
    assert len(weights) - FIRST_WORD == len(numbers) - len(SPECIAL), (len(weights), len(numbers))
    return numbers, np.array(weights, dtype=np.float32)


def _read_table(
    lines: Iterator[str], count: int, order: int, numbers: dict[str, int]
) -> NDArray[np.uint64]:
    words = np.empty((count, order), dtype=np.uint32)
    weights = np.zeros((count, 2), dtype=np.float32)
    for i in range(count):
        log_p, gram, *back_off = next(lines).split("\t")
        words[i] = [numbers[word] for word in gram.split(" ")]
        weights[i] = (float(log_p), float(back_off[0]) if back_off else 0.0)
    return fill_table(gram_keys(words.reshape(-1), order=order), weights.view(np.uint64)[:, 0])
