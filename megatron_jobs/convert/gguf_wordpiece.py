"""WordPiece, the tokenizer of BERT, as GGUF's metadata and as tokenizer.json.

GGUF marks what begins a word (with U+2581) where WordPiece marks what does not (with ##).
Source: conversion/bert.py and llm_tokenizer_wpm_session of llama.cpp, which makes letters small,
takes accents off and cuts at punctuation, always.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs.convert.gguf_file import GGUFFile
from megatron_jobs.convert.hugging_face import TOKENIZER, TOKENIZER_BYTES
from megatron_jobs.convert.json_file import read_limited_json
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.sentencepiece_format import PieceType

MODEL = "tokenizer.ggml."
START, INSIDE = "\N{LOWER ONE EIGHTH BLOCK}", "##"
NORMALIZER = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}
"""What llama.cpp does; strip_accents null is as lowercase is."""
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
LONGEST = 100
"""Letters of a word, over which it is unknown."""
ROLES = {
    "cls": ("bos", 101),
    "sep": ("seperator", 102),
    "unk": ("unknown", 100),
    "pad": ("padding", 0),
    "mask": ("mask", 103),
}
"""Role -> GGUF's name of its `..._token_id`, and the id where none is told."""


def wordpiece_metadata(folder: Path, rows: int) -> dict[str, Any] | None:
    """The metadata of a folder's tokenizer.json; None when it is not WordPiece.

    Args:
        rows: of the embedding; those without a token become tokens that no text has.
    Raises: UserError for one that llama.cpp cannot cut text like.
    """
    file = folder / TOKENIZER
    state = read_limited_json(file, TOKENIZER_BYTES) if file.is_file() else None
    if not isinstance(state, dict) or (state.get("model") or {}).get("type") != "WordPiece":
        return None
    try:
        _check_cuts(state)
        vocab = state["model"]["vocab"]
        special = {token["content"] for token in state["added_tokens"] if token["special"]}
        own = state["model"]["unk_token"]
        found = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]", "unk": own}
        ids = {ROLES[role][0]: vocab[text] for role, text in found.items() if text in vocab}
        return _metadata(vocab, special, rows) | {
            f"{MODEL}{name}_token_id": np.uint32(number) for name, number in ids.items()
        }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{file}: not a tokenizer: {error!r}") from error


def _check_cuts(state: Mapping[str, Any]) -> None:
    normalizer = state.get("normalizer") or {}
    for key, wanted in NORMALIZER.items():
        found = normalizer.get(key)
        if found != wanted and not (key == "strip_accents" and found is True):
            rule = f"llama.cpp cuts words as with {wanted!r}"
            raise UserError(f"tokenizer.json: normalizer: {key}: found {found!r}; {rule}")
    cut = (state.get("pre_tokenizer") or {}).get("type")
    prefix = state["model"]["continuing_subword_prefix"]
    if cut != "BertPreTokenizer" or prefix != INSIDE:
        rule = f"llama.cpp has BertPreTokenizer and {INSIDE!r} alone"
        raise UserError(f"tokenizer.json: pre_tokenizer {cut}, prefix {prefix!r}; {rule}")


def _metadata(vocab: Mapping[str, int], special: set[str], rows: int) -> dict[str, Any]:
    texts = [f"[PAD{row}]" for row in range(rows)]
    types = np.full(rows, PieceType.UNUSED, np.int32)
    for text, number in vocab.items():
        if not 0 <= number < rows:
            raise UserError(f"tokenizer: token {text!r} has id {number}, the model {rows} rows")
        kind = PieceType.CONTROL if text in special else PieceType.NORMAL
        told = _told(text, kind)
        if _heard(told, kind) != text:
            raise UserError(f"tokenizer.json: token {text!r} cannot be told from another in GGUF")
        texts[number], types[number] = told, kind
    found: dict[str, Any] = {MODEL + "model": "bert", MODEL + "pre": "default"}
    return found | {MODEL + "tokens": texts, MODEL + "token_type": types}


def _told(text: str, kind: PieceType) -> str:
    """A token as GGUF has it."""
    if kind == PieceType.CONTROL:
        return text
    return text.removeprefix(INSIDE) if text.startswith(INSIDE) else START + text


def _heard(text: str, kind: PieceType) -> str:
    """The way back."""
    if kind in (PieceType.CONTROL, PieceType.UNUSED):
        return text
    return text.removeprefix(START) if text.startswith(START) else INSIDE + text


def wordpiece_state(
    file: GGUFFile, tokens: Sequence[str], types: Sequence[PieceType]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(tokenizer.json, tokenizer_config.json) of a file's tokens.

    Raises: ValueError when tokens are missing that go around each text.
    """
    pairs = list(zip(tokens, types, strict=True))
    vocab = {_heard(t, kind): n for n, (t, kind) in enumerate(pairs) if kind != PieceType.UNUSED}
    numbers = {
        role: file.metadata.get(f"{MODEL}{name}_token_id", usual)
        for role, (name, usual) in ROLES.items()
    }
    roles = {
        role: _heard(*pairs[n])
        for role, n in numbers.items()
        if isinstance(n, int) and 0 <= n < len(pairs)
    }
    if not {"cls", "sep", "unk"} <= roles.keys():
        raise ValueError(f"token ids {numbers} of {len(pairs)} tokens")
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": n, "content": text, **plain, "special": True}
        for text, n in vocab.items()
        if types[n] == PieceType.CONTROL
    ]
    model = {
        **{"type": "WordPiece", "unk_token": roles["unk"], "vocab": vocab},
        **{"continuing_subword_prefix": INSIDE, "max_input_chars_per_word": LONGEST},
    }
    state = {
        **{"version": "1.0", "truncation": None, "padding": None, "added_tokens": added},
        **{"normalizer": NORMALIZER, "pre_tokenizer": {"type": "BertPreTokenizer"}},
        "post_processor": _around(roles["cls"], roles["sep"], vocab),
        "decoder": {"type": "WordPiece", "prefix": INSIDE, "cleanup": True},
        "model": model,
    }
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": INPUTS}
    return state, own | {f"{role}_token": text for role, text in roles.items()}


def _around(first: str, last: str, vocab: Mapping[str, int]) -> dict[str, Any]:
    """CLS A SEP, and of pairs B SEP."""
    start = {"SpecialToken": {"id": first, "type_id": 0}}
    one, two = (
        [{"Sequence": {"id": name, "type_id": n}}, {"SpecialToken": {"id": last, "type_id": n}}]
        for n, name in enumerate("AB")
    )
    special = {text: {"id": text, "ids": [vocab[text]], "tokens": [text]} for text in (first, last)}
    single, pair = [start, *one], [start, *one, *two]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": special,
    }
