"""BERT's tokenizer there and back, by the ids of `tokenizers` and llama.cpp's way to find them."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer

from megatron_jobs.convert.files import write_files
from megatron_jobs.convert.gguf_file import GGUFFile, read_gguf
from megatron_jobs.convert.gguf_out import plan_gguf
from megatron_jobs.convert.gguf_tokenizer import tokenizer_files_of, write_tokenizer
from megatron_jobs.convert.gguf_wordpiece import wordpiece_metadata
from megatron_jobs.errors import DataError, UserError
from tests.family_models import read_tensors
from tests.gguf_files import ill_named
from tests.unit.infer.encoders import PIECES, write_encoder

TEXTS = ["The cat, sat!", "Größe  don't", "a 你好 b", "unaffable", "A\tb\nc", "x1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "bert")


def written(folder: Path, out: Path) -> Path:
    config = json.loads((folder / "config.json").read_text())
    plans = plan_gguf(read_tensors(folder), config, "a.gguf", form="f16", tokenizer=folder)
    write_files(plans, out, key=lambda: "key")
    return out / "a.gguf"


def as_llama_cpp(metadata: dict[str, Any], text: str) -> list[int]:
    """The longest token at each place of a word (llm_tokenizer_wpm_session)."""
    ids = {token: number for number, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    bare = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    found = [metadata["tokenizer.ggml.bos_token_id"]]
    for word in re.findall(r"[一-鿿]|[^\W_]+|[^\w\s]", bare.lower().replace("你好", " 你 好 ")):
        rest, own = "\u2581" + word, []
        while rest:
            sizes = [n for n in range(len(rest), 0, -1) if rest[:n] in ids]
            if not sizes:
                own = [metadata["tokenizer.ggml.unknown_token_id"]]
                break
            own.append(ids[rest[: sizes[0]]])
            rest = rest[sizes[0] :]
        found += own
    return [*found, metadata["tokenizer.ggml.seperator_token_id"]]


def test_words_there_and_back(folder: Path, tmp_path: Path) -> None:
    path = written(folder, tmp_path / "out")
    assert not ill_named(path)
    file = read_gguf(path)
    tokens = list(file.metadata["tokenizer.ggml.tokens"])
    assert tokens[:7] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2581a", "\u2581b"]
    assert tokens[PIECES.index("##a")] == "a"
    assert file.metadata["tokenizer.ggml.token_type_count"] == 2
    (tmp_path / "back").mkdir()
    write_tokenizer(file, tmp_path / "back")
    before = Tokenizer.from_file(str(folder / "tokenizer.json"))
    after = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    for text in TEXTS:
        ids = before.encode(text).ids
        assert after(text).input_ids == ids, text
        assert as_llama_cpp(file.metadata, text) == ids, text
    pair = before.encode("a b", "c")
    assert after("a b", "c").input_ids == pair.ids
    assert after("a b", "c").token_type_ids == pair.type_ids
    assert (after.cls_token, after.mask_token, after.pad_token) == ("[CLS]", "[MASK]", "[PAD]")


@pytest.mark.parametrize(
    ("place", "value", "rule"),
    [
        (("normalizer", "lowercase"), False, "lowercase: found False; llama.cpp cuts words as"),
        (("normalizer", "strip_accents"), False, "strip_accents: found False"),
        (("pre_tokenizer", "type"), "Whitespace", "pre_tokenizer Whitespace, prefix '##'"),
        (("model", "continuing_subword_prefix"), "@@", "prefix '@@'; llama.cpp has Bert"),
        (("model", "vocab"), {"##\u2581a": 0}, "cannot be told from another in GGUF"),
        (("model", "vocab"), {"a": 99}, "token 'a' has id 99, the model 57 rows"),
        (("model", "vocab"), 7, "not a tokenizer"),
    ],
)
def test_what_llama_cpp_cuts_otherwise_is_refused(
    place: tuple[str, str], value: object, rule: str, folder: Path
) -> None:
    file = folder / "tokenizer.json"
    state = json.loads(file.read_text())
    state[place[0]][place[1]] = value
    file.write_text(json.dumps(state))
    with pytest.raises((UserError, DataError), match=rule):
        wordpiece_metadata(folder, 57)


def test_other_tokenizers_are_not_words(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": {"type": "BPE"}}')
    assert wordpiece_metadata(folder, 57) is None
    assert wordpiece_metadata(tmp_path, 57) is None


def test_a_file_whose_ids_lie_is_refused(folder: Path, tmp_path: Path) -> None:
    file = read_gguf(written(folder, tmp_path / "out"))
    metadata = file.metadata | {"tokenizer.ggml.bos_token_id": 5000}
    with pytest.raises(DataError, match="its tokenizer is none: token ids"):
        tokenizer_files_of(GGUFFile(file.path, metadata, {}, {}))
