"""SentencePiece models of tokenizers, where SentencePiece can give the same ids."""

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from megatron_jobs.errors import UserError
from megatron_jobs.text.merge_order import last_pair
from megatron_jobs.text.piece_tokenizer import BYTE_REST, ENDS, INNER, SPACE, cuts_of, quoted
from megatron_jobs.text.sentencepiece_format import (
    ModelType,
    Piece,
    PieceType,
    SentencePieceModel,
)


@dataclass(frozen=True)
class Shape:
    """What a tokenizer does to text before it is cut into pieces."""

    charsmap: bytes = b""
    collapse: bool = False
    prefix: bool = False
    others: list[dict[str, Any]] = field(default_factory=list)
    """Steps that SentencePiece does not know."""


def model_of_tokenizer(tokenizer: Tokenizer, roles: dict[str, str]) -> SentencePieceModel:
    """The SentencePiece model that gives a tokenizer's ids.

    Args:
        roles: bos_token, eos_token and pad_token, as in special_tokens_map.json.
    Raises: UserError, with the reason, when SentencePiece cannot give them.
    """
    state = json.loads(tokenizer.to_str())
    kind = state["model"]["type"]
    shape = _shape(state["normalizer"])
    if kind not in ("BPE", "Unigram"):
        raise UserError(_refused(f"its model is {kind}"))
    if shape is None or shape.others:
        raise UserError(_refused("it normalizes or writes spaces in another way"))
    pieces = _pieces(state)
    _check_splitter(state["pre_tokenizer"], pieces[: len(state["model"]["vocab"])], kind)
    places = {piece.text: place for place, piece in enumerate(pieces)}
    ids = {role: places.get(roles.get(f"{role}_token", ""), -1) for role in ("bos", "eos", "pad")}
    return SentencePieceModel(
        pieces=pieces,
        model_type=ModelType.BPE if kind == "BPE" else ModelType.UNIGRAM,
        byte_fallback=bool(state["model"]["byte_fallback"]),
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["pad"],
        normalizer="user_defined" if shape.charsmap else "identity",
        charsmap=shape.charsmap,
        dummy_prefix=shape.prefix,
        collapse_spaces=shape.collapse,
    )


def _shape(state: dict[str, Any] | None) -> Shape | None:
    """What a normalizer does; None when it does not write spaces as SentencePiece does."""
    steps = state["normalizers"] if state and state["type"] == "Sequence" else [state or {}]
    last = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if steps[-1] != last:
        return None
    rest = list(steps[:-1])
    prefix = bool(rest) and rest[-1] == {"type": "Prepend", "prepend": SPACE}
    rest = rest[:-1] if prefix else rest
    spaces = [
        {"type": "Replace", "pattern": {"Regex": ENDS}, "content": ""},
        {"type": "Replace", "pattern": {"Regex": INNER}, "content": " "},
    ]
    collapse = rest[-2:] == spaces
    rest = rest[:-2] if collapse else rest
    charsmap = b""
    if rest and rest[0]["type"] == "Precompiled":
        charsmap = base64.b64decode(rest.pop(0)["precompiled_charsmap"])
    return Shape(charsmap, collapse, prefix, rest)


def _check_splitter(state: dict[str, Any] | None, pieces: list[Piece], kind: str) -> None:
    """Raise UserError when text is cut where SentencePiece would not cut it."""
    steps = state["pretokenizers"] if state and state["type"] == "Sequence" else [state or {}]
    found = [step.get("pattern", {}).get("Regex") for step in steps if state is not None]
    allowed = [pattern for pattern, _ in cuts_of(pieces, unigram=kind == "Unigram")]
    if any(pattern not in allowed for pattern in found):
        raise UserError(_refused("it cuts text into words in another way"))


def _own_of(state: dict[str, Any] | None, order: list[str]) -> set[str]:
    """The tokens that a pre-tokenizer takes out of text as they are."""
    steps = state["pretokenizers"] if state and state["type"] == "Sequence" else []
    pattern = steps[0].get("pattern", {}).get("Regex", "") if steps else ""
    tokens = {quoted(token): token for token in order}
    parts = _alternatives(pattern)
    return {tokens[part] for part in parts} if all(p in tokens for p in parts) else set()


def _alternatives(pattern: str) -> list[str]:
    r"""A pattern cut at each | that is none of \|."""
    return re.split(r"(?<!\\)\|", pattern) if pattern else []


def _pieces(state: dict[str, Any]) -> list[Piece]:
    model = state["model"]
    if model["type"] == "Unigram":
        scores = dict(model["vocab"])
        order = [text for text, _ in model["vocab"]]
        unknown = order[model["unk_id"]] if model["unk_id"] is not None else None
    else:
        order = sorted(model["vocab"], key=model["vocab"].__getitem__)
        scores = _scores(order, model["merges"])
        unknown = model["unk_token"]
    added = {token["content"]: token for token in state["added_tokens"]}
    ids = {token["id"] for token in added.values()} | set(range(len(order)))
    order += sorted((t for t in added if t not in scores), key=lambda t: added[t]["id"])
    if unknown is None or ids != set(range(len(order))):
        raise UserError(_refused("it has no unknown token, or ids without tokens"))
    own = _own_of(state["pre_tokenizer"], order)
    pieces = [_typed(t, scores.get(t, 0.0), added.get(t), t in own) for t in order]
    pieces[order.index(unknown)] = Piece(unknown, 0.0, PieceType.UNKNOWN)
    if model["type"] == "BPE":
        _check_merges(pieces, model["merges"])
    return pieces


def _typed(text: str, score: float, added: dict[str, Any] | None, own: bool) -> Piece:
    if own:
        return Piece(text, 0.0, PieceType.USER_DEFINED)
    if added:
        return Piece(text, 0.0, PieceType.CONTROL if added["special"] else PieceType.USER_DEFINED)
    if re.fullmatch(f"<{BYTE_REST}", text):
        return Piece(text, 0.0, PieceType.BYTE)
    return Piece(text, score)


def _scores(order: list[str], merges: list[list[str]]) -> dict[str, float]:
    """Of a merged piece the merge's place, below 0; of the others places after the last merge."""
    made = {a + b: place for place, (a, b) in reversed(list(enumerate(merges)))}
    rest = {token: len(merges) + place for place, token in enumerate(order) if token not in made}
    return {token: -float(made.get(token, rest.get(token, 0))) for token in order}


def _check_merges(pieces: list[Piece], merges: list[list[str]]) -> None:
    pairs: dict[str, set[tuple[str, str]]] = {}
    for a, b in merges:
        pairs.setdefault(a + b, set()).add((a, b))
    ranks = {piece.text: -piece.score for piece in pieces if piece.type == PieceType.NORMAL}
    for token in ranks:
        pair = last_pair(token, ranks) if len(token) > 1 else None
        if pair not in pairs.get(token, {None}):
            raise UserError(_refused(f"{token!r} is made of other parts by the order of scores"))


def _refused(reason: str) -> str:
    return f"formats: found sentencepiece, which cannot keep this tokenizer: {reason}; leave it out"
