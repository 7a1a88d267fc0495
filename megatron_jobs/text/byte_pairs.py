"""A byte-level BPE tokenizer trained on texts, and the vocab.json and merges.txt of such ones."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json, write_text
from megatron_jobs.text.byte_alphabet import bytes_of
from megatron_jobs.text.merge_order import last_pair
from megatron_jobs.text.split_patterns import GPT2, byte_level_splitter, pattern_in

BYTES = 256
VOCAB, MERGES = "vocab.json", "merges.txt"
PAIRS = ((VOCAB, MERGES), ("encoder.json", "vocab.bpe"))
"""How Hugging Face and OpenAI call the two files."""
UNICODE = {
    "nfc": normalizers.NFC,
    "nfd": normalizers.NFD,
    "nfkc": normalizers.NFKC,
    "nfkd": normalizers.NFKD,
}
"""Unicode's four normal forms; each changes some texts for good."""


def train_byte_pairs(
    texts: Iterable[str],
    *,
    vocab_size: int,
    special: Sequence[str],
    least_count: int,
    pattern: str = GPT2,
    normalizer: str = "none",
) -> Tokenizer:
    """A tokenizer with at most `vocab_size` tokens; equal texts give equal tokenizers.

    Args:
        special: tokens with the first ids, never cut; the bytes follow, then the merges.
        least_count: times that a pair must occur to be merged.
        pattern: of the words that text is cut into; no merge goes over their ends.
        normalizer: one of UNICODE, or none: then every text comes back byte by byte.
    Source: Sennrich et al. 2016, arXiv:1508.07909; on bytes as in GPT-2.
    """
    tokenizer = _with_bytes(models.BPE(), pattern)
    if normalizer in UNICODE:
        tokenizer.normalizer = UNICODE[normalizer]()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=least_count,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_merges(vocab: Path, merges: Path, *, pattern: str = GPT2) -> Tokenizer:
    """The tokenizer of a vocab.json and merges.txt, of bytes in GPT-2's alphabet.

    Entries that no bytes spell, such as <|endoftext|>, are special tokens.
    Raises: DataError when one of the files is damaged, or of another kind.
    """
    ids = _ids_in(vocab)
    lines = merges.read_text(encoding="utf-8").split("\n")
    rows = [line.rstrip("\r").split(" ") for line in lines if line.strip("\r")]
    rows = [row for row in rows if row[0] != "#version:"]
    for row in rows:  # the library stops the process for what is not in the vocabulary
        if len(row) != 2 or any(token not in ids for token in (*row, "".join(row))):
            rule = f"must be two tokens of {vocab.name} that make a third"
            raise DataError(f"{merges}: found the line {' '.join(row)!r}, {rule}")
    pairs = [(row[0], row[1]) for row in rows]
    tokenizer = _with_bytes(models.BPE(vocab=ids, merges=pairs), pattern)
    made = {a + b for a, b in pairs}
    rest = [t for t in sorted(ids, key=ids.__getitem__) if len(t) > 1 and t not in made]
    added = [AddedToken(token, special=True, normalized=False) for token in rest]
    tokenizer.add_special_tokens(added)
    return tokenizer


def write_merges(tokenizer: Tokenizer, folder: Path) -> None:
    """Write folder/vocab.json and merges.txt, as GPT2Tokenizer reads them.

    Raises: UserError, with the reason, when these would give other ids.
    """
    state = json.loads(tokenizer.to_str())
    _check_plain(state, pattern_in(tokenizer.pre_tokenizer))
    model = state["model"]
    vocab: dict[str, int] = model["vocab"]
    vocab |= {token["content"]: token["id"] for token in state["added_tokens"]}
    rows = sorted(vocab.items(), key=lambda item: item[1])
    write_text(folder / VOCAB, json.dumps(dict(rows), ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    write_text(folder / MERGES, "\n".join(lines) + "\n")


def _ids_in(vocab: Path) -> dict[str, int]:
    ids = read_json(vocab)
    if not isinstance(ids, dict) or not all(isinstance(number, int) for number in ids.values()):
        raise DataError(f"{vocab}: must be an object of tokens and their ids")
    return ids


def _with_bytes(model: models.Model, pattern: str) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = byte_level_splitter(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _check_plain(state: dict[str, Any], pattern: str | None) -> None:
    model = state["model"]
    if model["type"] != "BPE" or pattern is None:
        raise UserError(_refused("only byte-level BPE is written so"))
    if pattern != GPT2 or state["normalizer"]:
        raise UserError(_refused("they name no normalizer and no pattern but GPT-2's"))
    added = {token["content"] for token in state["added_tokens"]}
    reached = added | {a + b for a, b in model["merges"]}
    rest = [token for token in model["vocab"] if len(token) > 1 and token not in reached]
    if rest:
        raise UserError(_refused(f"{len(rest)} tokens such as {rest[0]!r} are made by no merge"))
    if model.get("ignore_merges"):  # then a word that is a token must come of its merges too
        ranks = {bytes_of(t): i for t, i in model["vocab"].items() if t not in added}
        lost = [t for t in ranks if len(t) > 1 and last_pair(t, ranks) is None]
        if lost:
            raise UserError(_refused(f"the token {lost[0]!r} is taken whole, not by merges"))


def _refused(reason: str) -> str:
    return f"formats: found merges, which cannot keep this tokenizer: {reason}; leave it out"
