from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from megatron_jobs.errors import UserError
from megatron_jobs.text.byte_pairs import train_byte_pairs
from megatron_jobs.text.encoder import load_encoder
from megatron_jobs.text.token_bytes import token_bytes
from megatron_jobs.text.tokenizer_files import Found, save_tokenizer

TEXTS = [
    "naïve café, “quoted” — 你好 🙂 the the the",
    "\tplain\n\nlines  with   spaces",
    "<|end|> x",
]


def test_bytes_add_up_to_those_of_the_text(tmp_path: Path) -> None:
    special = ["<|end|>", "<|pad|>"]
    tokenizer = train_byte_pairs(TEXTS * 3, vocab_size=300, special=special, least_count=2)
    tokenizer.add_tokens([AddedToken("naïve café", special=False)])
    save_tokenizer(Found(tokenizer, {"eos_token": special[0]}), tmp_path)
    encoder = load_encoder(tmp_path)
    lengths = token_bytes(encoder.tokenizer, encoder.vocab_size)
    for text, ids in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        assert lengths[ids].sum() == len(text.encode())
    assert lengths[encoder.eod] == 0


@pytest.mark.parametrize(("decoder", "kind"), [(decoders.CTC(), "CTC"), (None, "none")])
def test_tokens_of_another_kind_are_not_counted(
    decoder: decoders.Decoder | None, kind: str
) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={"▁the": 0}, merges=[]))
    if decoder is not None:
        tokenizer.decoder = decoder
    rule = f"its decoder is {kind}, must be ByteLevel, Metaspace, WordPiece or SentencePiece's to t"
    with pytest.raises(UserError, match=rule):
        token_bytes(tokenizer, 1)
