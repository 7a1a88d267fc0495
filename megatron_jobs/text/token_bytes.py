"""How many bytes of text each token stands for."""

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders

from megatron_jobs.errors import UserError


def token_bytes(tokenizer: Tokenizer, vocab_size: int) -> NDArray[np.int64]:
    """Bytes [vocab_size] of text that each id of a byte-level BPE stands for; 0 for specials.

    Raises: UserError when the tokenizer is of another kind.
    Source: in GPT-2's byte-level alphabet each character stands for one byte (Radford et al. 2019,
    section 2.2; encoder.py, bytes_to_unicode).
    """
    if not isinstance(tokenizer.decoder, decoders.ByteLevel):
        kind = type(tokenizer.decoder).__name__ if tokenizer.decoder else "none"
        rule = "must be ByteLevel to count the bytes of its tokens"
        raise UserError(f"tokenizer: its decoder is {kind}, {rule}; give a byte-level tokenizer")
    lengths = np.zeros(vocab_size, np.int64)
    added = tokenizer.get_added_tokens_decoder()
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        if number < vocab_size and number not in added:
            lengths[number] = len(token)
    for number, text in added.items():
        if number < vocab_size and not text.special:  # it is written as it is, not in that alphabet
            lengths[number] = len(text.content.encode())
    return lengths
