"""Bulk encoding against tokenizers itself, for each kind of tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from megatron_jobs.errors import UserError
from megatron_jobs.text import bounded_tokenizer, bulk
from megatron_jobs.text.batches import BETWEEN, SEPARATOR
from megatron_jobs.text.bulk import HARD, BulkEncoder, bulk_encoder
from megatron_jobs.text.encoder import Encoder, load_encoder

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"
TEXTS = [json.loads(line)["text"][:20_000] for line in BOOKS.read_text().splitlines()[:3]]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Of Qwen 2."""
SPECIAL = ["<s>", "<|end|>"]


def trained(kind: str) -> Tokenizer:
    """A small tokenizer of a kind that is in use."""
    makers = {"llama": llama, "unigram": unigram, "wordpiece": word_piece}
    return makers[kind]() if kind in makers else byte_level(kind)


def byte_level(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "gpt2-space")
    if kind == "qwen":
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def llama() -> Tokenizer:
    """Byte pairs of SentencePiece's kind, with a token for each byte."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    prepend, replace = normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([prepend, replace])
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", *SPECIAL, *single]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([t[:2000].split(" ") for t in TEXTS], trainer)
    model = json.loads(tokenizer.to_str())
    model["added_tokens"] = [t for t in model["added_tokens"] if "<0x" not in t["content"]]
    return Tokenizer.from_str(json.dumps(model))


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", *SPECIAL]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[UNK]", *SPECIAL]
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def saved(tokenizer: Tokenizer, folder: Path, **settings: Any) -> Encoder:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_encoder(folder / "tokenizer.json", **settings)


def ids_of(encoder: BulkEncoder, texts: list[str]) -> list[list[int]]:
    """Each text's ids, whatever stands around it."""
    raws = [text.encode() for text in texts]
    ids = encoder.encode(BETWEEN.join(raws), np.array([len(raw) for raw in raws], np.int64))
    cuts = np.flatnonzero(ids == encoder.separator)
    bare = [part[n > 0 :].tolist() for n, part in enumerate(np.split(ids, cuts))]
    assert len(bare) == len(texts)
    return [[*encoder.before, *one, *encoder.after] for one in bare]


KINDS = {
    "gpt2": "gigatoken",
    "gpt2-space": "gigatoken",
    "qwen": "gigatoken",
    "llama": "gigatoken",
    "unigram": "tokenizers",
    "wordpiece": "tokenizers",
}
"""Kind -> what encodes it."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special_in_text", [False, True])
@pytest.mark.parametrize("template", [False, True])
def test_ids_are_those_of_tokenizers(
    tmp_path: Path, kind: str, special_in_text: bool, template: bool
) -> None:
    tokenizer = trained(kind)
    tokenizer.add_tokens([AddedToken("naïve café", lstrip=True)])
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A <|end|> <s>",
            special_tokens=[(s, tokenizer.token_to_id(s)) for s in SPECIAL],
        )
    encoder = saved(tokenizer, tmp_path, special_in_text=special_in_text, template=template)
    fast = bulk_encoder(encoder, "auto", lambda: TEXTS)
    assert fast.name == KINDS[kind]
    assert bool(fast.why) == (fast.name == "tokenizers")
    texts = [*HARD, "", *TEXTS, "<|end|> a<s>b", "the naïve café. Mr Mrs", "", "a"]
    assert ids_of(fast, texts) == encoder.encode(texts)
    assert ids_of(fast, [""]) == encoder.encode([""])


def test_what_stands_between_texts_may_stand_in_one(tmp_path: Path) -> None:
    encoder = saved(trained("gpt2"), tmp_path)
    fast = bulk_encoder(encoder, "gigatoken", lambda: [])
    for marks in (SEPARATOR, SEPARATOR * 2, SEPARATOR[:2], SEPARATOR[1:], "\ufdd0"):
        texts = ["a" + marks, marks, marks + "b", "", marks + "c" + marks]
        raws = [text.encode() for text in texts]
        sizes = np.array([len(raw) for raw in raws], np.int64)
        ids = fast.encode(BETWEEN.join(raws), sizes)
        slow = bulk.by_tokenizers(encoder).encode(BETWEEN.join(raws), sizes)
        assert np.array_equal(ids, slow)
        assert np.count_nonzero(ids == fast.separator) == len(texts) - 1


def test_a_tokenizer_that_is_begun_anew_gives_the_same_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here before each text, as if it had always remembered too much."""
    monkeypatch.setattr(bounded_tokenizer, "LOOK_BYTES", 0)
    monkeypatch.setattr(bounded_tokenizer, "MOST_REMEMBERED", -(1 << 50))
    encoder = saved(trained("gpt2"), tmp_path)
    fast = bulk_encoder(encoder, "gigatoken", lambda: [])
    backend = bulk._backend(encoder, encoder.vocab_size)
    before = backend._inner
    for text in TEXTS:
        assert ids_of(fast, [text, "a"]) == encoder.encode([text, "a"])
    assert backend._inner is not before


def test_one_that_gives_other_ids_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it does so on a text of the job alone."""
    encoder = saved(trained("gpt2"), tmp_path)
    other = saved(trained("qwen"), tmp_path / "other")
    monkeypatch.setattr(bulk, "HARD", ("a",))
    backend = bulk._backend(other, encoder.vocab_size)
    monkeypatch.setattr(bulk, "_backend", lambda *_: backend)
    assert bulk_encoder(encoder, "auto", lambda: ["a"]).name == "gigatoken"
    assert bulk_encoder(encoder, "auto", lambda: ["a 12345\n\n\n it's"]).name == "tokenizers"
    message = (
        "encoder: gigatoken cannot be used: its ids differ from those of tokenizers; take auto"
    )
    with pytest.raises(UserError, match=message):
        bulk_encoder(encoder, "gigatoken", lambda: ["a 12345\n\n\n it's"])


def test_a_token_that_it_finds_elsewhere_is_noticed(tmp_path: Path) -> None:
    """gigatoken 0.10 takes a token that is to stand as a word of its own inside words too."""
    tokenizer = trained("gpt2")
    tokenizer.add_tokens([AddedToken("Mr", single_word=True)])
    encoder = saved(tokenizer, tmp_path)
    fast = bulk_encoder(encoder, "auto", lambda: [])
    assert ids_of(fast, ["Mr Mrs", "MrMr"]) == encoder.encode(["Mr Mrs", "MrMr"])


def test_why_it_is_not_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = saved(trained("unigram"), tmp_path)
    fast = bulk_encoder(encoder, "auto", lambda: [])
    assert fast.why.startswith('Unsupported model type "Unigram"')
    assert not bulk_encoder(encoder, "tokenizers", lambda: []).why
    monkeypatch.setitem(__import__("sys").modules, "gigatoken.gigatoken_rs", None)
    bulk._loaded.cache_clear()
    assert bulk_encoder(encoder, "auto", lambda: []).why == "it is not installed"
