"""The bytes of text that each token stands for."""

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from megatron_jobs.errors import UserError
from megatron_jobs.text.byte_alphabet import bytes_of
from megatron_jobs.text.piece_tokenizer import BYTE_REST, SPACE

_BYTE = re.compile(f"<{BYTE_REST}")


def token_bytes(tokenizer: Tokenizer, vocab_size: int) -> NDArray[np.int64]:
    """Bytes [vocab_size] of text that each id stands for; 0 for special tokens.

    The space that SentencePiece puts before a text counts as one byte of it.
    Raises: UserError when the tokenizer does not say what its tokens stand for.
    """
    lengths = np.zeros(vocab_size, np.int64)
    for number, found in bytes_by_id(tokenizer).items():
        if number < vocab_size:
            lengths[number] = len(found)
    return lengths


def bytes_by_id(tokenizer: Tokenizer) -> dict[int, bytes]:
    """Id -> what it stands for, of all tokens but special ones.

    Raises: UserError for other than byte-level BPE, SentencePiece's kinds and WordPiece.
    """
    state = json.loads(tokenizer.to_str())
    kind = _kind(state["decoder"])
    added = tokenizer.get_added_tokens_decoder()
    found = {
        number: _bytes_of(token, kind)
        for token, number in tokenizer.get_vocab(with_added_tokens=True).items()
        if number not in added and (kind != "bytes" or " " not in token)
    }
    # an added token is written as it is, not in the alphabet
    own = {number: text.content.encode() for number, text in added.items() if not text.special}
    return found | own


def _kind(decoder: dict[str, Any] | None) -> str:
    """How tokens spell text: bytes (GPT-2's alphabet), pieces (SentencePiece's) or words."""
    name = decoder["type"] if decoder else "none"
    parts = decoder["decoders"] if decoder and name == "Sequence" else [decoder]
    if name == "ByteLevel":
        return "bytes"
    if name == "WordPiece":
        return "words"
    spaces = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    if name == "Metaspace" or spaces in parts:
        return "pieces"
    rule = "must be ByteLevel, Metaspace, WordPiece or SentencePiece's to tell the bytes of tokens"
    raise UserError(f"tokenizer: its decoder is {name}, {rule}; give one of these")


def _bytes_of(token: str, kind: str) -> bytes:
    if kind == "bytes":
        return bytes_of(token)
    if kind == "words":
        return token.removeprefix("##").encode()
    if _BYTE.fullmatch(token):
        return bytes([int(token[3:5], 16)])
    return token.replace(SPACE, " ").encode()
