"""Tokenizers there and back, by the ids of `tokenizers` and by transformers' reader of GGUF."""

import json
import random
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from megatron_jobs.convert.gguf_file import GGUFFile, read_gguf
from megatron_jobs.convert.gguf_splitters import LETTERS, PATTERNS, splitter_json, splitter_name
from megatron_jobs.convert.gguf_tokenizer import tokenizer_files_of, write_tokenizer
from megatron_jobs.convert.gguf_tokens import tokenizer_metadata
from megatron_jobs.errors import DataError, UserError
from tests.family_models import VOCAB
from tests.gguf_files import write_case

TEXTS = [
    "the cat sat on the mat",
    "don't  1 23  456\n\n  x",
    "Größe 你好\tend ",
    " a <|end|> b<think>c",
]
LETTERS_OF_DEEPSEEK = 2729
TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}<|end|>{% endfor %}"


def corpus() -> list[str]:
    draw = random.Random(2)
    words = ["the", "cat", "sat", "on", "mat", "don't", "Größe", "12", "end", "a", "b"]
    return [" ".join(draw.choices(words, k=9)) for _ in range(60)]


def byte_level(folder: Path, name: str = "gpt-2") -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    cut = json.dumps({"type": "Sequence", "pretokenizers": [splitter_json(name)]})
    state = json.loads(tokenizer.to_str()) | {"pre_tokenizer": json.loads(cut)["pretokenizers"][0]}
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 10,
        special_tokens=["<s>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False)])
    return saved(tokenizer, folder)


def pieces(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    byte = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 5,
        special_tokens=["<unk>", "<s>", "<|end|>", *byte],
        show_progress=False,
        max_token_length=4,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in byte]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return saved(tokenizer, folder)


def saved(tokenizer: Tokenizer, folder: Path, **settings: Any) -> Tokenizer:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    own = {"bos_token": "<s>", "eos_token": {"content": "<|end|>"}, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(own | settings))
    return tokenizer


@pytest.mark.parametrize("name", PATTERNS)
def test_bytes_there_and_back(name: str, tmp_path: Path) -> None:
    before = byte_level(tmp_path / "tok", name)
    file = read_gguf(write_case("gpt2", tmp_path, tokenizer=tmp_path / "tok"))
    assert file.metadata["tokenizer.ggml.pre"] == name
    assert len(file.metadata["tokenizer.ggml.tokens"]) == VOCAB
    (tmp_path / "back").mkdir()
    write_tokenizer(file, tmp_path / "back")
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    for text in [*TEXTS, *corpus()]:
        ids = before.encode(text).ids
        assert found(text).input_ids == ids, text
        assert found.decode(ids) == text
    assert (found.bos_token, found.eos_token) == ("<s>", "<|end|>")
    said = found.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert said == "<s>hi<|end|>"


def test_deepseeks_empty_normalizer_is_none(tmp_path: Path) -> None:
    byte_level(tmp_path / "tok", "deepseek-v3")
    file = tmp_path / "tok" / "tokenizer.json"
    state = json.loads(file.read_text())
    assert len(state["pre_tokenizer"]["pretokenizers"]) == 4
    state["normalizer"] = {"type": "Sequence", "normalizers": []}
    assert splitter_name(state) == "deepseek-v3"


@pytest.mark.parametrize("name", ["gpt-2", "qwen2", "llama-bpe"])
def test_transformers_reads_the_same_ids(name: str, tmp_path: Path) -> None:
    before = byte_level(tmp_path / "tok", name)
    path = write_case("llama", tmp_path, tokenizer=tmp_path / "tok")
    found = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in TEXTS:
        assert found(text, add_special_tokens=False).input_ids == before.encode(text).ids


def test_pieces_there_and_back(tmp_path: Path) -> None:
    before = pieces(tmp_path / "tok")
    path = write_case("llama", tmp_path, tokenizer=tmp_path / "tok")
    file = read_gguf(path)
    assert file.metadata["tokenizer.ggml.model"] == "llama"
    assert file.metadata["tokenizer.ggml.token_type"][:4].tolist() == [2, 3, 3, 6]
    (tmp_path / "back").mkdir()
    write_tokenizer(file, tmp_path / "back")
    found = Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    other = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in [*TEXTS[:3], *corpus()]:
        ids = before.encode(text).ids
        assert found.encode(text).ids == ids, text
        assert found.decode(ids) == text
        assert other(text, add_special_tokens=False).input_ids == ids


def test_the_first_token_is_put_before_a_text(tmp_path: Path) -> None:
    before = byte_level(tmp_path / "tok")
    saved(before, tmp_path / "tok", add_bos_token=True)
    file = read_gguf(write_case("gpt2", tmp_path, tokenizer=tmp_path / "tok"))
    assert file.metadata["tokenizer.ggml.add_bos_token"] is True
    (tmp_path / "back").mkdir()
    write_tokenizer(file, tmp_path / "back")
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert found("the cat").input_ids == [0, *before.encode("the cat").ids]


def test_a_way_of_cutting_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer.ggml.pre: found 'nonsense', which has no"):
        splitter_json("nonsense")
    state: dict[str, Any] = {"pre_tokenizer": {"type": "Whitespace"}, "model": {}}
    with pytest.raises(UserError, match=r"cuts text in a way that llama.cpp has no name for"):
        splitter_name(state)
    with pytest.raises(UserError, match=r"normalizer Lowercase: llama.cpp has none but NFC"):
        splitter_name(state | {"normalizer": {"type": "Lowercase"}})
    byte_level(tmp_path / "tok")
    with pytest.raises(UserError, match="has id 9, the model 9 rows"):
        tokenizer_metadata(tmp_path / "tok", 9)


def test_a_tokenizer_that_lies_is_refused(tmp_path: Path) -> None:
    byte_level(tmp_path / "tok")
    file = read_gguf(write_case("gpt2", tmp_path, tokenizer=tmp_path / "tok"))

    def refused(key: str, value: Any, rule: str) -> None:
        metadata = file.metadata | {f"tokenizer.ggml.{key}": value}
        with pytest.raises((DataError, UserError), match=rule):
            tokenizer_files_of(GGUFFile(file.path, metadata, {}, {}))

    words = file.metadata["tokenizer.ggml.tokens"]
    merges = type(words)(words.data, words.places[[5, 9]])
    refused("merges", merges, "must be two tokens that make a third")
    refused("tokens", type(words)(words.data, words.places[[4, 4]]), "comes twice")
    refused("token_type", np.ones(3, np.int32), "not one for each of 300 tokens")
    refused("tokens", 7, "tokenizer.ggml.tokens: missing")
    refused("model", "rwkv", "found 'rwkv'; bert, gpt2, llama and t5 are read")
    refused("model", "llama", "scores: not one for each of 300 tokens")
    assert tokenizer_files_of(GGUFFile(file.path, {}, {}, {})) == {}


def test_letters_of_deepseek_have_two_forms() -> None:
    """All of them, range after range; a few that Unicode got later, or never paired, it lacks."""
    before, count = 0, 0
    for first, last, alone in re.findall(r"(.)-(.)|(.)", LETTERS):
        start, stop = ord(first or alone), ord(last or alone)
        assert before < start <= stop
        kinds = {unicodedata.category(chr(number)) for number in range(start, stop + 1)}
        assert kinds <= {"Lu", "Ll", "Lt"}
        before, count = stop, count + stop - start + 1
    assert count == LETTERS_OF_DEEPSEEK
