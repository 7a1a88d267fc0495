"""A Hugging Face tokenizer as GGUF's metadata: tokens, what they are, merges or scores, ids.

V rows of the embedding; rows without a token become tokens that no text has.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs.convert.gguf_splitters import splitter_name
from megatron_jobs.convert.hugging_face import PIECES, TOKENIZER, TOKENIZER_BYTES
from megatron_jobs.convert.json_file import read_limited_json
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.sentencepiece_format import ModelType, PieceType, read_model

MODEL = "tokenizer.ggml."
ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Of tokenizer_config.json's `..._token` -> of the metadata's `..._token_id`."""
TEMPLATE = "chat_template.jinja"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has what `tokenizer_metadata` reads."""
    return (folder / TOKENIZER).is_file() or (folder / PIECES).is_file()


def tokenizer_metadata(folder: Path, rows: int) -> dict[str, Any]:
    """The metadata of a folder's tokenizer: its tokenizer.json, else its tokenizer.model.

    Args:
        rows: V.
    Raises: UserError for one that llama.cpp cannot cut text like; DataError for a damaged one.
    """
    file = folder / (TOKENIZER if (folder / TOKENIZER).is_file() else PIECES)
    settings = _read(folder / "tokenizer_config.json", {})
    try:
        state = _read(file) if file.name == TOKENIZER else _state_of_pieces(folder, settings)
        byte_level = '"ByteLevel"' in _kinds(state.get("pre_tokenizer"))
        made = _byte_level(state) if byte_level else _pieces(folder, state, settings)
        found = made | _tokens(state, made.pop("pieces", {}), rows)
        return found | _special(state, settings) | _template(folder, settings)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{file}: not a tokenizer: {error!r}") from error


def _state_of_pieces(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What tokenizer.json would say of a folder with tokenizer.model alone.

    `settings` get the roles that only the model names, and what its class of transformers does
    where nothing is said: a token before each text.
    """
    model = read_model(folder / PIECES)
    kinds = [piece.type for piece in model.pieces]
    unknown = kinds.index(PieceType.UNKNOWN) if PieceType.UNKNOWN in kinds else -1
    ids = {"bos": model.bos_id, "eos": model.eos_id, "pad": model.pad_id, "unk": unknown}
    for role, number in ids.items():
        if number >= 0:
            settings.setdefault(f"{role}_token", model.pieces[number].text)
    settings.setdefault("add_bos_token", model.model_type == ModelType.BPE)
    vocab = {piece.text: number for number, piece in enumerate(model.pieces)}
    roles = {_text(settings.get(f"{role}_token")) for role in ROLES}
    own = _read(folder / "added_tokens.json", {}).items()
    added = {number: {"content": text, "special": text in roles} for text, number in own}
    added |= {int(n): token for n, token in settings.get("added_tokens_decoder", {}).items()}
    tokens = [{**token, "id": number} for number, token in added.items()]
    return {"model": {"type": "pieces", "vocab": vocab}, "added_tokens": tokens}


def _read(file: Path, default: Any = None) -> dict[str, Any]:
    if default is not None and not file.is_file():
        return dict(default)
    found = read_limited_json(file, TOKENIZER_BYTES)
    if not isinstance(found, dict):
        raise DataError(f"{file}: must be an object")
    return found


def _kinds(step: Any) -> str:
    """The types of a pre-tokenizer's steps, as text."""
    steps = step.get("pretokenizers", [step]) if isinstance(step, dict) else []
    return " ".join(f'"{part["type"]}"' for part in steps)


def _byte_level(state: Mapping[str, Any]) -> dict[str, Any]:
    if state["model"]["type"] != "BPE":
        raise UserError(f"tokenizer.json: a model of {state['model']['type']} over bytes, not BPE")
    merges = state["model"]["merges"]
    pairs = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    made = {MODEL + "model": "gpt2", MODEL + "pre": splitter_name(dict(state))}
    return {**made, MODEL + "merges": pairs}


def _pieces(folder: Path, state: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """SentencePiece's kind: from tokenizer.model where it lies there, else from tokenizer.json."""
    if (folder / PIECES).is_file():
        model = read_model(folder / PIECES)
    else:
        from tokenizers import Tokenizer

        from megatron_jobs.text.piece_model import model_of_tokenizer

        roles = {f"{role}_token": _text(settings.get(f"{role}_token")) for role in ROLES}
        model = model_of_tokenizer(Tokenizer.from_file(str(folder / TOKENIZER)), roles)
    kind = {"BPE": "llama", "UNIGRAM": "t5"}.get(model.model_type.name)
    if kind is None:
        raise UserError(f"{folder}: a SentencePiece model of {model.model_type.name.lower()}s")
    found: dict[str, Any] = {MODEL + "model": kind, MODEL + "pre": "default"}
    found[MODEL + "add_space_prefix"] = model.dummy_prefix
    if model.charsmap:
        found[MODEL + "precompiled_charsmap"] = np.frombuffer(model.charsmap, np.uint8)
    places = dict(enumerate(model.pieces))
    return {**found, "pieces": places}


def _tokens(state: Mapping[str, Any], pieces: Mapping[int, Any], rows: int) -> dict[str, Any]:
    """Tokens by their ids, with types and, of pieces, scores."""
    texts, types = [f"[PAD{row}]" for row in range(rows)], np.full(rows, PieceType.UNUSED, np.int32)
    scores = np.full(rows, -1000.0, np.float32)
    vocab = state["model"]["vocab"]
    own = vocab.items() if isinstance(vocab, dict) else ((t, n) for n, (t, _) in enumerate(vocab))
    added = {token["id"]: token for token in state.get("added_tokens", [])}
    for text, number in [*own, *((token["content"], n) for n, token in added.items())]:
        if not 0 <= number < rows:
            raise UserError(f"tokenizer: token {text!r} has id {number}, the model {rows} rows")
        texts[number], types[number] = text, PieceType.NORMAL
    for number, piece in pieces.items():
        if number < rows:
            texts[number], types[number], scores[number] = piece.text, piece.type, piece.score
    for number, token in added.items():
        if types[number] != PieceType.UNKNOWN:
            kind = PieceType.CONTROL if token["special"] else PieceType.USER_DEFINED
            texts[number], types[number] = token["content"], kind
    found: dict[str, Any] = {MODEL + "tokens": texts, MODEL + "token_type": types}
    return found | ({MODEL + "scores": scores} if pieces else {})


def _special(state: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Ids of tokens with a role, and which of them go around every text."""
    vocab = state["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {t: n for n, (t, _) in enumerate(vocab)}
    ids |= {token["content"]: token["id"] for token in state.get("added_tokens", [])}
    found: dict[str, Any] = {}
    for role, name in ROLES.items():
        text = _text(settings.get(f"{role}_token"))
        if text in ids:
            found[f"{MODEL}{name}_token_id"] = np.uint32(ids[text])
    first, last = _around(state.get("post_processor"))
    found[MODEL + "add_bos_token"] = first or bool(settings.get("add_bos_token"))
    found[MODEL + "add_eos_token"] = last or bool(settings.get("add_eos_token"))
    return found


def _around(processor: Any) -> tuple[bool, bool]:
    """Whether a post-processor puts a token before and after a text."""
    steps = processor.get("processors", [processor]) if isinstance(processor, dict) else []
    single = [s["single"] for s in steps if s["type"] == "TemplateProcessing"]
    if not single or not single[0]:
        return False, False
    return "SpecialToken" in single[0][0], "SpecialToken" in single[0][-1]


def _template(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    file = folder / TEMPLATE
    text = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if isinstance(text, list):  # several, by name
        text = {one["name"]: one["template"] for one in text}.get("default")
    return {"tokenizer.chat_template": text} if isinstance(text, str) else {}


def _text(token: Any) -> str:
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else ""
