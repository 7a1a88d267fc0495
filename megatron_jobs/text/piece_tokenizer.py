"""Tokenizers of SentencePiece models, in the library that the suite encodes with."""

import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.merge_order import last_pair
from megatron_jobs.text.sentencepiece_format import (
    ModelType,
    Piece,
    PieceType,
    SentencePieceModel,
)

SPACE = "▁"
"""How SentencePiece writes a space."""
WORDS = f"{SPACE}+[^{SPACE}]*|[^{SPACE}]+"
"""Spaces and the word after them: nothing is merged over its ends where no piece goes over them."""
BYTE_REST = "0x[0-9A-F]{2}>"
"""Of the name of a byte's piece, after its first letter."""
SPECIAL = (PieceType.CONTROL, PieceType.UNKNOWN)
ENDS = r"\A +| +\z"
INNER = r" {2,}"


def tokenizer_of_model(model: SentencePieceModel) -> Tokenizer:
    """A tokenizer with the ids that SentencePiece gives to a text, and the text of ids.

    A control piece such as </s> is a special token; none is put around a text. Two things differ:
    where two ways of Unigram score the same to float32's rounding, the library may take the other;
    and `tokenizers` loses a mark on a letter that a charsmap replaces without it (U+1E9B U+0323).
    Raises: UserError for models of words or characters, of unused pieces, or of spaces after words.
    """
    _check_kind(model)
    tokenizer = Tokenizer(_model(model))
    tokenizer.normalizer = _normalizer(model)
    splitter = _splitter(model)
    if splitter is not None:
        tokenizer.pre_tokenizer = splitter
    spaces = decoders.Replace(SPACE, " ")
    ends = [decoders.Strip(" ", 1, 0)] if model.dummy_prefix else []
    tokenizer.decoder = decoders.Sequence([spaces, decoders.ByteFallback(), decoders.Fuse(), *ends])
    special = [piece.text for piece in model.pieces if piece.type in SPECIAL]
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in special]
    )
    return tokenizer


def crosses_spaces(pieces: list[Piece]) -> bool:
    """Whether a piece goes over the end of a word."""
    over = re.compile(f"[^{SPACE}]{SPACE}")
    return any(over.search(piece.text) for piece in pieces if piece.type == PieceType.NORMAL)


def _check_kind(model: SentencePieceModel) -> None:
    if model.model_type not in (ModelType.UNIGRAM, ModelType.BPE):
        kind = model.model_type.name.lower()
        raise UserError(f"source: found a model of {kind}s, must be of BPE or Unigram")
    if model.suffix_spaces or not model.escape_spaces:
        raise UserError("source: found spaces kept in another way than before the word")
    if any(piece.type == PieceType.UNUSED for piece in model.pieces):
        raise UserError("source: found unused pieces, which a tokenizer.json cannot have")
    texts = {piece.text for piece in model.pieces}
    if len(texts) < len(model.pieces) or "" in texts:
        raise DataError("source: a piece is empty or comes twice")


def _model(model: SentencePieceModel) -> models.Model:
    unknown = [p for p, piece in enumerate(model.pieces) if piece.type == PieceType.UNKNOWN]
    if len(unknown) != 1:
        raise DataError(f"source: found {len(unknown)} unknown pieces, must be one")
    if model.model_type == ModelType.UNIGRAM:
        scored = [(piece.text, piece.score) for piece in _unreachable(model.pieces)]
        return models.Unigram(scored, unk_id=unknown[0], byte_fallback=model.byte_fallback)
    return models.BPE(
        vocab={piece.text: place for place, piece in enumerate(model.pieces)},
        merges=_merges(model.pieces),
        unk_token=model.pieces[unknown[0]].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
        ignore_merges=bool(_own(model.pieces)),  # of which none is made by merges
    )


def _unreachable(pieces: list[Piece]) -> list[Piece]:
    """The pieces, with scores of the worst for those that no text is cut into."""
    normal = [piece.score for piece in pieces if piece.type == PieceType.NORMAL]
    scores = {PieceType.USER_DEFINED: 0.0}  # alone in its word, none of its parts may be better
    worst = min(normal, default=0.0)
    return [
        piece
        if piece.type == PieceType.NORMAL
        else Piece(piece.text, scores.get(piece.type, worst), piece.type)
        for piece in pieces
    ]


def _merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    ranks = {piece.text: -piece.score for piece in pieces if piece.type == PieceType.NORMAL}
    merges = []
    # of pieces of one score, such as Llama's runs of spaces, the leftmost is merged first and so
    # grows: in ranks that all differ, the longer goes before
    for token in sorted((t for t in ranks if len(t) > 1), key=lambda t: (ranks[t], -len(t))):
        pair = last_pair(token, ranks)
        if pair and not (pair[0] in ranks and pair[1] in ranks):
            raise UserError(f"source: found the piece {token!r}, but not its parts {pair}")
        merges += [pair] if pair else []
    return merges


def _normalizer(model: SentencePieceModel) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.collapse_spaces:
        steps.append(normalizers.Replace(Regex(ENDS), ""))
        steps.append(normalizers.Replace(Regex(INNER), " "))
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])


def _splitter(model: SentencePieceModel) -> pre_tokenizers.PreTokenizer | None:
    """Cuts where nothing is merged over: the same ids, sooner."""
    cuts = cuts_of(model.pieces, unigram=model.model_type == ModelType.UNIGRAM)
    parts = [pre_tokenizers.Split(Regex(pattern), behavior) for pattern, behavior in cuts]
    return pre_tokenizers.Sequence(parts) if parts else None


def cuts_of(pieces: list[Piece], *, unigram: bool) -> list[tuple[str, str]]:
    """(pattern, behavior) of the splits before a model of `pieces`."""
    cuts = []
    own = sorted(_own(pieces), key=lambda text: (-len(text), text))
    if own:
        cuts.append(("|".join(quoted(text) for text in own), "isolated"))
    whole = all(len(re.findall(WORDS, text)) == 1 for text in own)
    if whole and not crosses_spaces(pieces):
        cuts.append((WORDS, "isolated"))
    if unigram or own:
        cuts.append((_guard(pieces, within=unigram), "merged_with_previous"))
    return cuts


def _own(pieces: list[Piece]) -> list[str]:
    """What is a token of its own wherever a text has it."""
    return [piece.text for piece in pieces if piece.type == PieceType.USER_DEFINED]


def _guard(pieces: list[Piece], *, within: bool) -> str:
    """The first letters of texts that are spelled as a piece that no text is cut into.

    Args:
        within: Unigram finds pieces anywhere in a word, BPE takes one only for a whole word.
    """
    known = {piece.text for piece in pieces if piece.type == PieceType.NORMAL}
    names = [piece.text for piece in pieces if piece.type in SPECIAL and len(piece.text) > 1]
    halves = [(name[:at], name[at:]) for name in names for at in [_cut_place(name, known)]]
    ways = [("<", BYTE_REST), *((quoted(first), quoted(rest)) for first, rest in halves)]
    begin, end = ("", "") if within else (r"\A", r"\z")
    return "|".join(f"{begin}{first}(?={rest}{end})" for first, rest in ways)


def _cut_place(name: str, known: set[str]) -> int:
    """Not between two unknown letters: these are one unknown token together."""
    places = range(1, len(name))
    return next((at for at in places if name[at - 1] in known or name[at] in known), 1)


def quoted(text: str) -> str:
    """A pattern that only `text` matches, and whose text shows what it is."""
    return re.sub(r"([^\w\s<>▁])", r"\\\1", text)
