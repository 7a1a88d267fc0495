"""SentencePiece's models, in and out, against the library itself."""

import io
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.piece_model import model_of_tokenizer
from megatron_jobs.text.piece_tokenizer import tokenizer_of_model
from megatron_jobs.text.sentencepiece_format import (
    ModelType,
    Piece,
    PieceType,
    SentencePieceModel,
    dump_model,
    parse_model,
    read_model,
    write_model,
)
from tests.multilingual import corpus, texts

KINDS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "bpe", "byte_fallback": True, "split_digits": True},
    "plain bpe": {"model_type": "bpe", "add_dummy_prefix": False},
    "t5": {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"},
    "unigram": {"model_type": "unigram", "byte_fallback": True},
    "own symbols": {
        "model_type": "bpe",
        "byte_fallback": True,
        "user_defined_symbols": ["\n", "[USER]", "::=", "|"],
        "control_symbols": ["<|im_start|>"],
    },
    "own unigram": {
        "model_type": "unigram",
        "byte_fallback": True,
        "user_defined_symbols": ["\n", "[USER]", "|"],
    },
    "over spaces": {"model_type": "bpe", "byte_fallback": True, "split_by_whitespace": False},
}
SPACES = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
LIKE_T5 = {"remove_extra_whitespaces": True}
LOST = "\u1e9b\u0323"
"""A mark on a letter that a charsmap replaces: `tokenizers` loses it."""
GIVEN = [*texts(), "a\n[USER] b[USER]|c ::= d\n\n[USER]"]


def train(name: str) -> bytes:
    written = io.BytesIO()
    settings = SPACES | (LIKE_T5 if name == "t5" else {}) | KINDS[name]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in corpus() for line in text.split("\n") if line]),
        model_writer=written,
        vocab_size=1200,
        hard_vocab_limit=False,
        minloglevel=2,
        **settings,
    )
    return written.getvalue()


def ids_of(tokenizer: Tokenizer, given: list[str]) -> list[list[int]]:
    tokenizer.encode_special_tokens = True
    return [found.ids for found in tokenizer.encode_batch(given, add_special_tokens=False)]


def score(model: SentencePieceModel, ids: list[int]) -> float:
    """What Unigram makes as large as it can; an unknown sign costs 10 more than the worst."""
    normal = [piece.score for piece in model.pieces if piece.type == PieceType.NORMAL]
    costs = {PieceType.NORMAL: 0.0, PieceType.USER_DEFINED: 0.0}
    kinds = [model.pieces[number] for number in ids]
    return sum(p.score if p.type in costs else min(normal) - 10 for p in kinds)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_ids_and_texts_are_those_of_sentencepiece(name: str, tmp_path: Path) -> None:
    """Of Unigram, but where two ways score the same to float32's rounding, in which it adds."""
    raw = train(name)
    (tmp_path / "x.model").write_bytes(raw)
    model = read_model(tmp_path / "x.model")
    theirs = sentencepiece.SentencePieceProcessor(model_proto=raw)
    ours = tokenizer_of_model(model)
    unequal = 0
    given = [text for text in GIVEN if not (model.charsmap and LOST in text)]
    assert len(given) >= len(GIVEN) - 1
    for text, found, expected in zip(given, ids_of(ours, given), theirs.encode(given), strict=True):
        if model.model_type == ModelType.BPE or found == expected:
            assert found == expected, text
        else:
            unequal += 1
            assert score(model, found) == pytest.approx(score(model, expected), rel=1e-6), text
        if model.byte_fallback:  # an unknown piece is written as ⁇ there, and left out here
            assert ours.decode(expected) == theirs.decode(expected)
    assert unequal < len(GIVEN) / 10


@pytest.mark.parametrize("name", sorted(KINDS))
def test_out_and_in_again(name: str, tmp_path: Path) -> None:
    """The model that is written gives the library the ids of the one that was read."""
    raw = train(name)
    model = parse_model(raw)
    assert parse_model(dump_model(model)) == model
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_model(model_of_tokenizer(tokenizer_of_model(model), roles), tmp_path / "x.model")
    again = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "x.model"))
    first = sentencepiece.SentencePieceProcessor(model_proto=raw)
    assert again.encode(GIVEN) == first.encode(GIVEN)
    assert (again.unk_id(), again.bos_id(), again.eos_id(), again.pad_id()) == (0, 1, 2, -1)
    kinds = ("is_control", "is_byte", "is_unknown", "is_unused")
    for number in range(first.get_piece_size()):
        assert again.id_to_piece(number) == first.id_to_piece(number)
        assert [getattr(again, kind)(number) for kind in kinds] == [
            getattr(first, kind)(number) for kind in kinds
        ]


def test_pieces_of_one_score_grow_from_the_left() -> None:
    """As Llama's runs of spaces, which all have the same score."""
    runs = [Piece("▁" * length, -1e9) for length in (2, 4, 8, 3, 5)]
    pieces = [Piece("<unk>", 0.0, PieceType.UNKNOWN), *runs, Piece("▁", -1e9), Piece("a", -2.0)]
    model = SentencePieceModel(pieces=pieces, model_type=ModelType.BPE, dummy_prefix=False)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=dump_model(model))
    given = [" " * length + "a" for length in range(40)]
    assert ids_of(tokenizer_of_model(model), given) == theirs.encode(given)


def test_damaged_files(tmp_path: Path) -> None:
    raw = train("llama")
    file = tmp_path / "x.model"
    for bad in (raw[:-1], raw[: len(raw) // 2], b"\n", b"", b"\x0a\x03\x0a\x01\xff"):
        file.write_bytes(bad)
        with pytest.raises(DataError, match=r"x.model: not a whole SentencePiece model: "):
            read_model(file)


def test_models_that_cannot_be_had() -> None:
    pieces = [Piece("<unk>", 0.0, PieceType.UNKNOWN), Piece("a", -1.0)]

    def refused(match: str, more: list[Piece] = [], **settings: Any) -> None:  # noqa: B006
        model = SentencePieceModel(
            **({"pieces": pieces + more, "model_type": ModelType.BPE} | settings)
        )
        with pytest.raises((UserError, DataError), match=match):
            tokenizer_of_model(model)

    refused("found a model of words, must be of BPE or Unigram", model_type=ModelType.WORD)
    refused("found unused pieces", [Piece("b", 0.0, PieceType.UNUSED)])
    refused("found spaces kept in another way than before the word", suffix_spaces=True)
    refused("a piece is empty or comes twice", [Piece("a", 0.0)])
    refused("found 0 unknown pieces, must be one", pieces=pieces[1:])
    refused("found the piece 'ab', but not its parts", [Piece("ab", 0.0)])


def test_what_a_model_cannot_say_is_refused() -> None:
    refused = "formats: found sentencepiece, which cannot keep this tokenizer: "
    with pytest.raises(UserError, match=refused + "its model is WordLevel"):
        model_of_tokenizer(Tokenizer(models.WordLevel({"a": 0}, "a")), {})
    ours = tokenizer_of_model(parse_model(train("llama")))
    ours.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(UserError, match=refused + "it cuts text into words in another way"):
        model_of_tokenizer(ours, {})
    ours.normalizer = normalizers.NFC()
    with pytest.raises(UserError, match=refused + "it normalizes or writes spaces in another way"):
        model_of_tokenizer(ours, {})
