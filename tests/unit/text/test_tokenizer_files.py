"""Every format is read, and what cannot be kept in one is refused."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertTokenizer

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json
from megatron_jobs.text.byte_pairs import train_byte_pairs
from megatron_jobs.text.piece_training import train_pieces
from megatron_jobs.text.sentencepiece_format import ModelType
from megatron_jobs.text.split_patterns import PATTERNS
from megatron_jobs.text.tokenizer_files import (
    Format,
    Found,
    found_in_model,
    pad_vocabulary,
    read_tokenizer,
    save_tokenizer,
    with_special,
    write_formats,
)
from megatron_jobs.text.word_pieces import train_word_pieces
from tests.multilingual import SENTENCES, corpus, texts

NAMES = ["<|endoftext|>", "<|pad|>"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GIVEN = texts()


def bytes_of(pattern: str = "gpt2") -> Found:
    tokenizer = train_byte_pairs(
        corpus(), vocab_size=1200, special=NAMES, least_count=2, pattern=PATTERNS[pattern]
    )
    return Found(tokenizer, {"eos_token": NAMES[0]})


def pieces_of(kind: ModelType = ModelType.BPE) -> Found:
    return found_in_model(train_pieces(corpus(), model_type=kind, vocab_size=1500, special=NAMES))


def words_of(lowercase: bool = True) -> Found:
    return Found(
        train_word_pieces(corpus, vocab_size=1500, special=BERT, least_count=2, lowercase=lowercase)
    )


def ids_of(found: Found) -> list[list[int]]:
    found.tokenizer.encode_special_tokens = True
    return [one.ids for one in found.tokenizer.encode_batch(GIVEN, add_special_tokens=False)]


@pytest.mark.parametrize(
    ("found", "name", "file"),
    [
        (bytes_of, "tiktoken", "tokenizer.tiktoken"),
        (bytes_of, "merges", "vocab.json"),
        (bytes_of, "merges", "merges.txt"),
        (pieces_of, "sentencepiece", "tokenizer.model"),
        (lambda: pieces_of(ModelType.UNIGRAM), "sentencepiece", "tokenizer.model"),
        (words_of, "wordpiece", "vocab.txt"),
    ],
)
def test_what_is_written_is_read_with_the_same_ids(
    found: "type[Found]", name: Format, file: str, tmp_path: Path
) -> None:
    first = found()
    write_formats(first, [name], tmp_path)
    for path in (tmp_path / file, tmp_path):
        again = read_tokenizer(path)
        assert ids_of(again) == ids_of(first)
        assert again.tokenizer.get_vocab() == first.tokenizer.get_vocab()


def test_a_folder_is_read_with_its_roles(tmp_path: Path) -> None:
    found = with_special(pieces_of(), ["<|chat|>"], {"bos_token": "<s>"})
    save_tokenizer(found, tmp_path)
    again = read_tokenizer(tmp_path)
    assert again.roles == found.roles
    assert again.roles["bos_token"] == "<s>"
    assert again.roles["eos_token"] == NAMES[0]
    assert again.tokenizer.token_to_id("<|chat|>") == 1501
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (1500, 0, 2)


def test_the_vocabulary_is_made_a_multiple() -> None:
    found = bytes_of()
    found = with_special(found, ["<|x|>"], {})
    size = found.tokenizer.get_vocab_size()
    pad_vocabulary(found, 64)
    assert found.tokenizer.get_vocab_size() == -(-size // 64) * 64
    assert found.tokenizer.id_to_token(size) == "<|reserved_0|>"
    pad_vocabulary(found, 64)
    assert found.tokenizer.get_vocab_size() == -(-size // 64) * 64


@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_reads_the_word_pieces(lowercase: bool, tmp_path: Path) -> None:
    found = words_of(lowercase)
    write_formats(found, ["wordpiece"], tmp_path)
    theirs = BertTokenizer(vocab=str(tmp_path / "vocab.txt"), do_lower_case=lowercase)
    given = list(SENTENCES.values())
    expected = [theirs(text, add_special_tokens=False).input_ids for text in given]
    tokenizer = found.tokenizer
    assert [tokenizer.encode(text, add_special_tokens=False).ids for text in given] == expected
    again = read_tokenizer(tmp_path / "vocab.txt", lowercase=lowercase)
    assert ids_of(again) == ids_of(found)
    assert again.roles == {
        "eos_token": "[SEP]",
        "sep_token": "[SEP]",
        "cls_token": "[CLS]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }


@pytest.mark.parametrize(
    ("found", "name", "reason"),
    [
        (bytes_of, "sentencepiece", "it normalizes or writes spaces in another way"),
        (bytes_of, "wordpiece", "it is made of BPE, None, ByteLevel, not of BERT's"),
        (pieces_of, "tiktoken", "only byte-level BPE with one pattern has ranks"),
        (pieces_of, "merges", "only byte-level BPE is written so"),
        (lambda: bytes_of("cl100k"), "merges", "they name no normalizer and no pattern but GPT-2"),
        (words_of, "sentencepiece", "its model is WordPiece"),
    ],
)
def test_impossible_pairs_are_refused(
    found: "type[Found]", name: Format, reason: str, tmp_path: Path
) -> None:
    match = f"formats: found {name}, which cannot keep this tokenizer: {reason}"
    with pytest.raises(UserError, match=match):
        write_formats(found(), [name], tmp_path)


def test_a_rank_file_says_its_pattern_by_its_name_or_beside_it(tmp_path: Path) -> None:
    write_formats(bytes_of("cl100k"), ["tiktoken"], tmp_path)
    file = tmp_path / "tokenizer.tiktoken"
    beside = tmp_path / "tokenizer.tiktoken.json"
    assert read_json(beside)["pattern"] == PATTERNS["cl100k"]
    first = ids_of(read_tokenizer(file))
    beside.unlink()
    with pytest.raises(UserError, match=r"pattern: found none, and .*tiktoken does not say"):
        read_tokenizer(file)
    assert ids_of(read_tokenizer(file, pattern="cl100k")) == first
    assert ids_of(read_tokenizer(file, pattern="gpt2")) != first
    known = file.rename(tmp_path / "cl100k_base.tiktoken")
    named = read_tokenizer(known)
    assert ids_of(named) == first
    assert named.tokenizer.token_to_id("<|endofprompt|>") == 100276
    assert named.roles == {"eos_token": "<|endoftext|>"}


def test_what_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such file or folder"):
        read_tokenizer(tmp_path / "none")
    with pytest.raises(UserError, match=r"has no tokenizer.json, tokenizer.model, vocab.json, e"):
        read_tokenizer(tmp_path)
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"x.json: not a tokenizer \("):
        read_tokenizer(tmp_path / "x.json")
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(DataError, match=r"found the line 'a b', must be two tokens of vocab.j"):
        read_tokenizer(tmp_path / "merges.txt")
    (tmp_path / "merges.txt").write_text("a b c\n")
    with pytest.raises(DataError, match=r"merges.txt: found the line 'a b c', must be two token"):
        read_tokenizer(tmp_path / "vocab.json")
    (tmp_path / "vocab.json").write_text('{"a": "x"}')
    with pytest.raises(DataError, match=r"vocab.json: must be an object of tokens and their ids"):
        read_tokenizer(tmp_path / "vocab.json")
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"vocab.txt: has no \[UNK\]; a vocab.txt of BERT's has"):
        read_tokenizer(tmp_path / "vocab.txt")
    (tmp_path / "vocab.txt").write_text("[UNK]\nb\nb\n")
    with pytest.raises(DataError, match=r"vocab.txt: a token comes twice"):
        read_tokenizer(tmp_path / "vocab.txt")
