"""SentencePiece's Unigram and BPE, trained by its own library: that of `tokenizers` gives another
vocabulary each time (its sums go over a hash map), this one the same for the same texts."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from megatron_jobs.errors import UserError
from megatron_jobs.text.sentencepiece_format import ModelType, SentencePieceModel, parse_model

UNKNOWN = "<unk>"
RULES = {"none": "identity", "nfkc": "nfkc", "nmt_nfkc": "nmt_nfkc"}
"""Normalizer -> its name in SentencePiece."""
ALWAYS: dict[str, Any] = {
    "hard_vocab_limit": False,  # fewer pieces where the texts give no more
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "num_threads": 4,  # sums go thread by thread: not by the machine's number of cores
    "minloglevel": 2,
}
"""What the trainer is told besides."""
_KEPT_OUT = "\\x00-\\x1f\\x7f▁▅"  # the trainer drops a text with a tab or one of its own signs
LINE = re.compile(f"[^{_KEPT_OUT}]{{1,1000}}(?=[{_KEPT_OUT} ]|\\Z)|[^{_KEPT_OUT}]{{1,1000}}")
"""At most 1000 characters, cut before a space: under the 4192 bytes that the trainer takes."""


def train_pieces(
    texts: Iterable[str],
    *,
    model_type: ModelType,
    vocab_size: int,
    special: Sequence[str],
    normalizer: str = "none",
    coverage: float = 0.9995,
    byte_fallback: bool = True,
    single_digits: bool = False,
) -> SentencePieceModel:
    """A model with at most `vocab_size` pieces; equal texts give equal models.

    Args:
        special: the end of a document, the padding, and further names that are never cut; they have
            the first ids, but <unk> comes third.
        normalizer: one of RULES; with none and `byte_fallback` every text comes back but for the
            sign U+2581, which becomes a space.
        coverage: share of all characters that have pieces; the rarest are left to the bytes.
        byte_fallback: characters without a piece are spelled in 256 byte pieces, not unknown.
        single_digits: no piece holds two digits.
    Raises: UserError when the texts cannot give such a vocabulary.
    Source: Kudo 2018, arXiv:1804.10959 (Unigram); Kudo and Richardson 2018, arXiv:1808.06226.
    """
    raw = _train(
        texts,
        model_type=model_type.name.lower(),
        vocab_size=vocab_size,
        character_coverage=coverage,
        byte_fallback=byte_fallback,
        split_digits=single_digits,
        normalization_rule_name=RULES[normalizer],
        **_names(special),
    )
    return parse_model(raw)


def _train(texts: Iterable[str], **settings: Any) -> bytes:
    """A model file of the library's trainer."""
    import sentencepiece

    lines = _Lines(texts)
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=written, **settings, **ALWAYS
        )
    except (RuntimeError, OSError) as error:
        size = settings["vocab_size"]
        raise UserError(f"vocab_size: found {size}, which cannot be: {error}") from error
    finally:
        lines.reraise()
    return written.getvalue()


def _names(special: Sequence[str]) -> dict[str, Any]:
    eod, pad, *others = special
    return {
        "eos_id": 0,
        "pad_id": 1,
        "unk_id": 2,
        "bos_id": -1,
        "eos_piece": eod,
        "pad_piece": pad,
        "unk_piece": UNKNOWN,
        "control_symbols": others,
    }


class _Lines:
    """What the trainer takes; it swallows errors of an iterator, so they are kept for later."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = texts
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[str]:
        try:
            for text in self.texts:
                yield from LINE.findall(text)
        except BaseException as error:
            self.error = error
            raise

    def reraise(self) -> None:
        """Raise what the texts raised, if they did."""
        if self.error is not None and not isinstance(self.error, GeneratorExit):
            raise self.error
