"""Bytes per token of byte-level BPE by the size of the vocabulary, from one training."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from tokenizers import Tokenizer

from megatron_jobs.text.byte_pairs import train_byte_pairs

END = "<|endoftext|>"


def curve(
    texts: Sequence[str], held_out: Sequence[str], *, sizes: Sequence[int], pattern: str
) -> dict[int, float]:
    """Size -> bytes per token of `held_out`, of vocabularies trained on `texts`.

    A vocabulary is the first merges of a larger one, so only the largest is trained. A size that
    the texts do not give is left out.
    """
    largest = train_byte_pairs(
        texts, vocab_size=max(sizes), special=[END], least_count=2, pattern=pattern
    )
    size = sum(len(text.encode()) for text in held_out)
    there = [wanted for wanted in sorted(sizes) if wanted <= largest.get_vocab_size()]
    return {wanted: size / _tokens(cut_vocabulary(largest, wanted), held_out) for wanted in there}


def cut_vocabulary(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """A trained byte-level BPE with its first `size` tokens only."""
    state = json.loads(tokenizer.to_str())
    vocab = state["model"]["vocab"]
    kept = {token: number for token, number in vocab.items() if number < size}
    merges = state["model"]["merges"]
    state["model"]["merges"] = [pair for pair in merges if "".join(pair) in kept]
    state["model"]["vocab"] = kept
    return Tokenizer.from_str(json.dumps(state))


def suggest(found: Mapping[int, float], *, least_gain: float) -> int | None:
    """The first size whose doubling gains less than `least_gain` of bytes per token.

    The largest where each doubling gains more; None without sizes.
    """
    order = sorted(found)
    for small, large in pairwise(order):
        doublings = math.log2(large / small)
        if (found[large] / found[small]) ** (1 / doublings) - 1 < least_gain:
            return small
    return order[-1] if order else None


def _tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return max(sum(len(encoding.ids) for encoding in encodings), 1)
