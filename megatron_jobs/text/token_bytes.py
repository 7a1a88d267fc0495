"""How many bytes of text each token stands for."""

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


def token_bytes(tokenizer: Tokenizer, vocab_size: int) -> NDArray[np.int64]:
    """Bytes [vocab_size] of text that each id of a byte-level BPE stands for; 0 for specials.

    Source: in GPT-2's byte-level alphabet each character stands for one byte (Radford et al. 2019,
    section 2.2; encoder.py, bytes_to_unicode).
    """
    lengths = np.zeros(vocab_size, np.int64)
    special = tokenizer.get_added_tokens_decoder()
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        if number not in special and number < vocab_size:
            lengths[number] = len(token)
    return lengths
