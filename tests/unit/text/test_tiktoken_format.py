"""Tiktoken's ranks, in and out, against tiktoken itself."""

import base64
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from tiktoken.load import load_tiktoken_bpe
from tiktoken_ext import openai_public
from tokenizers import Tokenizer, models, normalizers

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json
from megatron_jobs.text.byte_pairs import train_byte_pairs
from megatron_jobs.text.split_patterns import PATTERNS
from megatron_jobs.text.tiktoken_format import (
    KNOWN,
    Ranks,
    ranks_of,
    read_ranks,
    tokenizer_of_ranks,
    write_ranks,
)
from tests.multilingual import corpus, texts

NAMES = {"gpt2": "r50k_base", "r50k": "r50k_base", "p50k": "p50k_base"}
NAMES |= {"cl100k": "cl100k_base", "o200k": "o200k_base"}


def official(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What tiktoken says of a vocabulary, but for its ranks, which it would fetch."""
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    found: dict[str, Any] = getattr(openai_public, NAMES[name])()
    return found


def train(pattern: str, *, given: list[str] | None = None, **more: Any) -> Tokenizer:
    settings = {"vocab_size": 1500, "special": ["<|end|>", "<|a|>"], "least_count": 2} | more
    return train_byte_pairs(given or corpus(), pattern=pattern, **settings)


def ids_of(tokenizer: Tokenizer, given: list[str]) -> list[list[int]]:
    tokenizer.encode_special_tokens = True
    return [found.ids for found in tokenizer.encode_batch(given, add_special_tokens=False)]


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_patterns_and_names_are_those_of_tiktoken(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own pattern, in its own engine, cuts as ours; its special tokens are ours."""
    theirs = official(name, monkeypatch)
    pattern, special = KNOWN[name]
    assert special == theirs["special_tokens"]
    everything = train(r"[\s\S]+", given=texts(0) * 3, vocab_size=3000)
    ranks = ranks_of(everything).ranks  # with tokens over the ends of words, so that cuts count
    ours = tokenizer_of_ranks(Ranks(ranks, pattern))
    encoding = tiktoken.Encoding(
        name, pat_str=theirs["pat_str"], mergeable_ranks=ranks, special_tokens={}
    )
    given = texts()
    assert ids_of(ours, given) == encoding.encode_ordinary_batch(given)


def test_out_and_in_again(tmp_path: Path) -> None:
    trained = train(PATTERNS["cl100k"])
    write_ranks(ranks_of(trained), tmp_path)
    beside = read_json(tmp_path / "tokenizer.tiktoken.json")
    file = tmp_path / "tokenizer.tiktoken"
    theirs = tiktoken.Encoding(
        "x",
        pat_str=beside["pattern"],
        mergeable_ranks=load_tiktoken_bpe(str(file)),
        special_tokens=beside["special_tokens"],
    )
    assert beside["special_tokens"] == {"<|end|>": 0, "<|a|>": 1}
    again = tokenizer_of_ranks(Ranks(read_ranks(file), beside["pattern"], beside["special_tokens"]))
    given = texts()
    expected = ids_of(trained, given)
    assert theirs.encode_ordinary_batch(given) == expected
    assert ids_of(again, given) == expected
    assert [theirs.decode(found) for found in expected] == given
    assert again.token_to_id("<|a|>") == 1


def test_a_whole_word_is_taken_though_no_merge_makes_it() -> None:
    """As in cl100k: tiktoken looks a word up before it merges."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 300, b"abcd": 301, b"bc": 299}
    ours = tokenizer_of_ranks(Ranks(ranks, PATTERNS["gpt2"], {"<|end|>": 400}))
    theirs = tiktoken.Encoding(
        "x", pat_str=PATTERNS["gpt2"], mergeable_ranks=ranks, special_tokens={}
    )
    given = ["abcd", "abcde abcd", "ab", "abc", "unused 256"]
    assert ids_of(ours, given) == theirs.encode_ordinary_batch(given)
    assert ids_of(ours, ["abcd"]) == [[301]]
    assert ranks_of(ours).ranks == ranks


def test_damaged_files(tmp_path: Path) -> None:
    file = tmp_path / "x.tiktoken"
    lines = [base64.b64encode(bytes([byte])) + b" %d" % byte for byte in range(256)]
    file.write_bytes(b"\n".join([*lines, b"!!"]))
    with pytest.raises(DataError, match=r"x.tiktoken:257: found '!!', must be a token in base64"):
        read_ranks(file)
    file.write_bytes(b"\n".join([*lines, b"YWI= 7"]))
    with pytest.raises(DataError, match="a token or an id comes twice"):
        read_ranks(file)
    file.write_bytes(b"\n".join(lines[1:]))
    with pytest.raises(DataError, match="has no token for 1 bytes, such as 0x00"):
        read_ranks(file)
    with pytest.raises(DataError, match="has names or ids that are tokens already"):
        tokenizer_of_ranks(Ranks({bytes([b]): b for b in range(256)}, "", {"<|end|>": 7}))


def test_what_ranks_cannot_say_is_refused() -> None:
    refused = "formats: found tiktoken, which cannot keep this tokenizer: "
    with pytest.raises(UserError, match=refused + "it would leave out the normalizer NFC"):
        ranks_of(train(PATTERNS["gpt2"], normalizer="nfc"))
    with pytest.raises(UserError, match=refused + "only byte-level BPE with one pattern"):
        ranks_of(Tokenizer(models.WordLevel({"a": 0}, "a")))
    turned = train(PATTERNS["gpt2"])
    turned.normalizer = normalizers.Lowercase()
    with pytest.raises(UserError, match="normalizer Lowercase"):
        ranks_of(turned)


def test_merges_in_another_order_than_ids_are_refused() -> None:
    from megatron_jobs.text.tiktoken_format import check_merge_order

    ranks = {bytes([byte]): byte for byte in range(256)} | {b"ab": 256, b"bc": 257}
    check_merge_order(ranks, [(b"a", b"b"), (b"b", b"c")], whole_words=False)
    with pytest.raises(UserError, match="not in the order of the ids of what they make"):
        check_merge_order(ranks, [(b"b", b"c"), (b"a", b"b")], whole_words=False)
    ranks |= {b"abc": 258}
    merges = [(b"a", b"b"), (b"b", b"c"), (b"a", b"bc")]
    with pytest.raises(UserError, match="b'abc' is made of other parts by the order of ids"):
        check_merge_order(ranks, merges, whole_words=False)
