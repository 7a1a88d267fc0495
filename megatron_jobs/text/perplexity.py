"""How surprising a text is to a model of n-grams: one of stage `perplexity_model`, or KenLM's.

A folder of stage `perplexity_model` holds

    facts.json   words' splitting, order, quantiles by language, where it was learnt from
    singles.npy  float32 [vocabulary, 2]: base 10 logarithms of probability and back-off weight
    grams_N.npy  uint64 [slots * 2]: table of the n-grams of N words (csrc/ngrams/tables.h)
    words.npy    uint64 [slots * 2]: table from a word's hash to its number; or tokenizer.json
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._ngrams import WORDS_VERSION, GramScorer
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json

FACTS, SINGLES, WORDS, TOKENIZER = "facts.json", "singles.npy", "words.npy", "tokenizer.json"
FORMAT = 1
BUCKETS = ("head", "middle", "tail")
"""Thirds of a language's documents, the least surprising first, as CCNet has them.

Source: Wenzek et al. 2019, arXiv:1911.00359, section 4.
"""
ALL = "*"
"""In place of a language: documents of all."""
FIRST_WORD, END = 3, 2
"""Of csrc/ngrams/kneser_ney.h: 0 is unknown, 1 begins a line."""

TextScorer = Callable[[str], tuple[float, int]]
"""log10 p and words of a text's lines that have a word; the end of each is a word."""


class Perplexity:
    """Perplexities of texts; ends of lines count as words, as KenLM counts them.

    Args:
        score_text: what knows probabilities.
        facts: what is known of the model; "quantiles" by language are used by `bucket`.
    """

    def __init__(self, score_text: TextScorer, facts: dict[str, Any] | None = None) -> None:
        self._score_text = score_text
        self.facts = facts or {}

    def score(self, text: str) -> float:
        """Perplexity a word, 1 and more; NaN for a text without a word."""
        return perplexity(*self._score_text(text))

    def line_scores(self, text: str) -> list[float]:
        """Perplexity of each line of text.split("\\n"); NaN for one without a word."""
        return [self.score(line) for line in text.split("\n")]

    def bucket(self, value: float, language: str = "") -> str:
        """`head`, `middle` or `tail`: in which third of its language's documents a value is.

        A language that the model has no quantiles of is judged by those of all.
        Raises: UserError when the model has no quantiles at all.
        """
        found = self.facts.get("quantiles", {})
        if ALL not in found:
            raise UserError("buckets: the model has no quantiles; train it by perplexity_model")
        thirds = found.get(language, found[ALL])["thirds"]
        return BUCKETS[sum(value > third for third in thirds)]


def perplexity(log_p: float, words: int) -> float:
    """10^(-log_p / words); NaN for none, infinity when it is too great for a float."""
    if not words:
        return math.nan
    exponent = -log_p / words
    return 10.0**exponent if exponent < 308 else math.inf


def load_perplexity(path: Path) -> Perplexity:
    """The model in a folder of stage `perplexity_model`, an .arpa (or .arpa.gz), or KenLM's .bin.

    Words of an .arpa and a .bin are what stands between white space.
    Raises: UserError when there is none or what reads it is not installed; DataError when it is
        damaged.
    """
    name = path.name.lower()
    if name.endswith((".arpa", ".arpa.gz")):
        from megatron_jobs.text.arpa import load_arpa

        return Perplexity(load_arpa(path))
    if path.is_file():
        return Perplexity(_load_kenlm(path))
    if not (path / FACTS).is_file():
        raise UserError(f"{path}: no {FACTS} in it; name a perplexity_model job's `perplexity`")
    return _load_folder(path)


def _load_folder(path: Path) -> Perplexity:
    facts = read_json(path / FACTS)
    for name, known in (("format", FORMAT), ("words_version", WORDS_VERSION)):
        if facts.get(name) != known:
            found = f"{name} {facts.get(name)}, this version knows {known}"
            raise UserError(f"{path}: found a model of {found}; train it again")
    try:
        return Perplexity(_folder_scorer(path, facts), facts)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: found a damaged model: {error}; copy it again") from error


def _folder_scorer(path: Path, facts: dict[str, Any]) -> TextScorer:
    tokens = facts["unit"] == "tokens"
    scorer = GramScorer(
        np.load(path / SINGLES, mmap_mode="r").reshape(-1),
        [np.load(path / f"grams_{n}.npy", mmap_mode="r") for n in range(2, facts["order"] + 1)],
        vocabulary=None if tokens else np.load(path / WORDS, mmap_mode="r"),
        unknown_words=facts["unknown_words"],
    )
    if not tokens:
        return scorer.score_text
    number = token_numbers(path / TOKENIZER)
    return lambda text: scorer.score_lines(number(text))


def token_numbers(tokenizer: Path) -> Callable[[str], NDArray[np.uint32]]:
    """A function from a text to its tokens as a model numbers them, with the ends of lines."""
    from megatron_jobs.text.encoder import load_encoder

    encoder = load_encoder(tokenizer)

    def number(text: str) -> NDArray[np.uint32]:
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        found: list[int] = []
        for ids in encoder.encode(lines):
            found += (i + FIRST_WORD for i in ids)
            found.append(END)
        return np.array(found, dtype=np.uint32)

    return number


def _load_kenlm(path: Path) -> TextScorer:
    try:
        import kenlm  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: a model of KenLM needs the package kenlm; pip install kenlm, or give an .arpa"
        ) from error
    try:
        model = kenlm.Model(str(path))
    except OSError as error:
        raise DataError(f"{path}: KenLM cannot read it: {error}") from error

    def score_text(text: str) -> tuple[float, int]:
        lines = [line.split() for line in text.split("\n") if line and not line.isspace()]
        log_p = sum(model.score(" ".join(line), bos=True, eos=True) for line in lines)
        return log_p, sum(len(line) + 1 for line in lines)

    return score_text
