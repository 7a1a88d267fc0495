"""The tokenizer of a GGUF file as Hugging Face's files: tokenizer.json, tokenizer_config.json."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs.convert.gguf_file import GGUFFile, Texts
from megatron_jobs.convert.gguf_splitters import OTHERS, WHOLE_WORDS, splitter_json
from megatron_jobs.convert.gguf_tokens import MODEL, ROLES
from megatron_jobs.convert.gguf_wordpiece import wordpiece_state
from megatron_jobs.convert.hugging_face import TOKENIZER
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.sentencepiece_format import (
    ModelType,
    Piece,
    PieceType,
    SentencePieceModel,
)

WHOLE = (PieceType.CONTROL, PieceType.USER_DEFINED, PieceType.UNKNOWN)
"""Tokens that are found in a text before it is cut."""


def tokenizer_files_of(file: GGUFFile) -> dict[str, bytes]:
    """Name -> content of the files that hold a GGUF file's tokenizer; none where it has none.

    Raises: UserError for a kind that is not known; DataError when the metadata contradict
        themselves.
    """
    kind = file.metadata.get(MODEL + "model")
    if kind is None or kind == "none":
        return {}
    tokens, types = _tokens(file)
    try:
        if kind == "gpt2":
            state = _byte_level(file, tokens, types)
        elif kind in ("llama", "t5"):
            state = _pieces(file, tokens, types, kind)
        elif kind == "bert":
            state, settings = wordpiece_state(file, tokens, types)
            return {TOKENIZER: _json(state), "tokenizer_config.json": _json(settings)}
        else:
            known = "bert, gpt2, llama and t5 are read"
            raise UserError(f"{file.path}: {MODEL}model: found {kind!r}; {known}")
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file.path}: its tokenizer is none: {error}") from error
    settings = _settings(file, tokens)
    state["post_processor"] = _around(settings, tokens, kind) or state.get("post_processor")
    files = {TOKENIZER: state, "tokenizer_config.json": settings}
    return {name: _json(value) for name, value in files.items()}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _tokens(file: GGUFFile) -> tuple[list[str], list[PieceType]]:
    """Each token and what it is; DataError for tokens that come twice."""
    found = file.metadata.get(MODEL + "tokens")
    if not isinstance(found, Texts) or not len(found):
        raise DataError(f"{file.path}: {MODEL}tokens: missing")
    tokens = list(found)
    twice = [token for token, count in Counter(tokens).items() if count > 1]
    if twice:
        raise DataError(f"{file.path}: {MODEL}tokens: {twice[0]!r} comes twice")
    numbers = file.metadata.get(MODEL + "token_type", np.ones(len(tokens), np.int32))
    if not isinstance(numbers, np.ndarray) or len(numbers) != len(tokens):
        raise DataError(f"{file.path}: {MODEL}token_type: not one for each of {len(tokens)} tokens")
    known = {int(kind) for kind in PieceType}
    types = [PieceType(n) if n in known else PieceType.NORMAL for n in numbers.tolist()]
    return tokens, types


def _byte_level(file: GGUFFile, tokens: list[str], types: list[PieceType]) -> dict[str, Any]:
    name = file.metadata.get(MODEL + "pre", "")
    pairs = zip(tokens, range(len(tokens)), types, strict=True)
    vocab = {token: n for token, n, kind in pairs if kind != PieceType.UNUSED}
    model = {
        **{"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None},
        **{"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False},
        "ignore_merges": OTHERS.get(name, name) == WHOLE_WORDS,
        "vocab": vocab,
        "merges": _merges(file, vocab),
    }
    return {
        **{"version": "1.0", "truncation": None, "padding": None},
        "added_tokens": _added(tokens, types),
        "normalizer": {"type": "NFC"} if OTHERS.get(name, name) == "qwen2" else None,
        "pre_tokenizer": splitter_json(name),
        "post_processor": _trim(),
        "decoder": _trim(),
        "model": model,
    }


def _trim() -> dict[str, Any]:
    own = {"add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    return {"type": "ByteLevel", **own}


def _merges(file: GGUFFile, vocab: Mapping[str, int]) -> list[list[str]]:
    """Pairs; the library would stop the process for one that makes no token."""
    found = file.metadata.get(MODEL + "merges")
    if not isinstance(found, Texts):
        raise DataError(f"{file.path}: {MODEL}merges: missing; byte-level BPE has them")
    merges = [merge.split(" ") for merge in found]
    for merge in merges:
        if len(merge) != 2 or any(part not in vocab for part in (*merge, "".join(merge))):
            rule = "must be two tokens that make a third"
            raise DataError(f"{file.path}: {MODEL}merges: found {' '.join(merge)!r}, {rule}")
    return merges


def _added(tokens: Sequence[str], types: Sequence[PieceType]) -> list[dict[str, Any]]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": n, "content": token, **plain, "special": kind != PieceType.USER_DEFINED}
        for n, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in WHOLE and token
    ]


def _pieces(file: GGUFFile, tokens: list[str], types: list[PieceType], kind: str) -> dict[str, Any]:
    from megatron_jobs.text.piece_tokenizer import tokenizer_of_model

    scores = file.metadata.get(MODEL + "scores")
    if not isinstance(scores, np.ndarray) or len(scores) != len(tokens):
        raise DataError(f"{file.path}: {MODEL}scores: not one for each of {len(tokens)} tokens")
    while types and types[-1] == PieceType.UNUSED:
        types.pop()
    kinds = [PieceType.CONTROL if one == PieceType.UNUSED else one for one in types]
    rows = zip(tokens, scores.tolist(), kinds, strict=False)
    charsmap = file.metadata.get(MODEL + "precompiled_charsmap")
    model = SentencePieceModel(
        pieces=[Piece(text, score, one) for text, score, one in rows],
        model_type=ModelType.BPE if kind == "llama" else ModelType.UNIGRAM,
        byte_fallback=PieceType.BYTE in kinds,
        charsmap=charsmap.tobytes() if isinstance(charsmap, np.ndarray) else b"",
        dummy_prefix=file.metadata.get(MODEL + "add_space_prefix", True) is True,
    )
    state: dict[str, Any] = json.loads(tokenizer_of_model(model).to_str())
    state["added_tokens"] = _added(tokens[: len(types)], kinds)
    return state


def _settings(file: GGUFFile, tokens: Sequence[str]) -> dict[str, Any]:
    """tokenizer_config.json."""
    found: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, name in ROLES.items():
        number = file.metadata.get(f"{MODEL}{name}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            found[f"{role}_token"] = tokens[number]
    for key in ("add_bos_token", "add_eos_token"):
        default = key == "add_bos_token" and file.metadata.get(MODEL + "model") == "llama"
        found[key] = bool(file.metadata.get(MODEL + key, default))
    found["clean_up_tokenization_spaces"] = False
    template = file.metadata.get("tokenizer.chat_template")
    return found | ({"chat_template": template} if isinstance(template, str) else {})


def _around(settings: Mapping[str, Any], tokens: Sequence[str], kind: str) -> dict[str, Any] | None:
    """The post-processor that puts the first and the last token around a text."""
    around = {role: settings.get(f"{role}_token") for role in ("bos", "eos")}
    used = {r: t for r, t in around.items() if t and settings.get(f"add_{r}_token")}
    if not used:
        return None
    single: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    if "bos" in used:
        token = used["bos"]
        single = [_placed(token, 0), *single]
        pair = [_placed(token, 0), pair[0], _placed(token, 1), pair[1]]
    if "eos" in used:
        single = [*single, _placed(used["eos"], 0)]
        pair = [*pair, _placed(used["eos"], 1)]
    special = {
        token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]}
        for token in used.values()
    }
    own = {"single": single, "pair": pair, "special_tokens": special}
    return {"type": "TemplateProcessing", **own}


def _placed(token: str, number: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": number}}


def write_tokenizer(file: GGUFFile, folder: Path) -> list[Path]:
    """Write a file's tokenizer into a folder; the paths, none where there is no tokenizer."""
    found = tokenizer_files_of(file)
    for name, content in found.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in found]
