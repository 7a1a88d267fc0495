"""tokenizer.model without a tokenizer.json, beside SentencePiece and gguf's own reader of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from gguf.vocab import SentencePieceVocab
from tokenizers import Tokenizer

from megatron_jobs.convert.gguf_file import read_gguf
from megatron_jobs.convert.gguf_tokenizer import write_tokenizer
from megatron_jobs.convert.gguf_tokens import has_tokenizer, tokenizer_metadata
from megatron_jobs.errors import DataError, UserError
from tests.gguf_files import write_case

ROWS = 300
LINES = ["the ferry leaves at seven", "seven ferries leave the harbour", "don't wait for 12 of us"]


def slow(
    folder: Path, *, kind: str = "bpe", **settings: Any
) -> sentencepiece.SentencePieceProcessor:
    folder.mkdir(exist_ok=True)
    (folder / "lines").write_text("\n".join(LINES * 9))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "lines"),
        model_prefix=str(folder / "tokenizer"),
        model_type=kind,
        vocab_size=290 if kind == "bpe" else 40,
        hard_vocab_limit=False,
        byte_fallback=kind == "bpe",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))


def test_pieces_scores_and_types_are_those_of_ggufs_own_reader(tmp_path: Path) -> None:
    slow(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<think>": 290}')
    theirs = list(SentencePieceVocab(tmp_path).all_tokens())
    found = {k.removeprefix("tokenizer.ggml."): v for k, v in found_in(tmp_path).items()}
    ours = zip(found["tokens"], found["scores"], found["token_type"], strict=True)
    assert len(theirs) == 291
    assert [(text.encode(), score, kind) for text, score, kind in ours][:291] == theirs
    assert found["tokens"][291:] == [f"[PAD{row}]" for row in range(291, ROWS)]
    ids = [found[f"{role}_token_id"] for role in ("unknown", "bos", "eos")]
    assert (found["model"], ids) == ("llama", [0, 1, 2])
    assert (found["add_bos_token"], found["add_eos_token"]) == (True, False)


def found_in(folder: Path) -> dict[str, Any]:
    return tokenizer_metadata(folder, ROWS)


@pytest.mark.parametrize(("kind", "name"), [("bpe", "llama"), ("unigram", "t5")])
def test_the_ids_of_a_text_are_sentencepieces(kind: str, name: str, tmp_path: Path) -> None:
    before = slow(tmp_path / "tok", kind=kind, add_bos_token=False)
    file = read_gguf(write_case("llama", tmp_path, tokenizer=tmp_path / "tok"))
    assert file.metadata["tokenizer.ggml.model"] == name
    (tmp_path / "back").mkdir()
    write_tokenizer(file, tmp_path / "back")
    found = Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    for text in [*LINES, " a  ferry", "leave"]:
        assert found.encode(text).ids == before.encode(text), text


def test_what_tokenizer_config_says_comes_first(tmp_path: Path) -> None:
    told = {"257": {"content": "<|end|>", "special": True}, "291": {"content": "<a>", "special": 0}}
    slow(tmp_path, add_bos_token=False, eos_token="<|end|>", added_tokens_decoder=told)
    found = found_in(tmp_path)
    assert found["tokenizer.ggml.add_bos_token"] is False
    assert found["tokenizer.ggml.eos_token_id"] == 257
    kinds = found["tokenizer.ggml.token_type"]
    assert (kinds[257], kinds[291]) == (3, 4)


def test_a_model_that_is_damaged_or_too_large_is_named(tmp_path: Path) -> None:
    assert not has_tokenizer(tmp_path)
    slow(tmp_path)
    assert has_tokenizer(tmp_path)
    with pytest.raises(UserError, match=r"has id 9, the model 9 rows"):
        tokenizer_metadata(tmp_path, 9)
    (tmp_path / "added_tokens.json").write_text('{"<think>": "x"}')
    with pytest.raises(DataError, match=r"tokenizer\.model: not a tokenizer"):
        found_in(tmp_path)
    file = tmp_path / "tokenizer.model"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"tokenizer\.model: not a whole SentencePiece model"):
        found_in(tmp_path)
