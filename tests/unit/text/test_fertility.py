"""Counts of tokens, words and bytes, by hand and against plain loops."""

import pytest
from tokenizers import AddedToken

from megatron_jobs.text.byte_pairs import train_byte_pairs
from megatron_jobs.text.fertility import Count, Measure, count_words, in_batches
from megatron_jobs.text.piece_training import train_pieces
from megatron_jobs.text.sentencepiece_format import ModelType
from megatron_jobs.text.token_bytes import bytes_by_id
from megatron_jobs.text.tokenizer_files import found_in_model
from megatron_jobs.text.word_pieces import train_word_pieces
from tests.multilingual import SENTENCES, corpus, texts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" .,!", 0),
        ("The quick (“brown”) fox can’t jump 32.3 feet, right?", 9),
        ("can't e.g. U.S.A. foo_bar 3.14", 5),
        ("你好世界", 4),
        ("カタカナ ひら", 3),
        ("e\u0301te\u0301", 1),
        ("Привет, мир", 2),
        ("🙂🇩🇪", 0),
    ],
)
def test_words_by_unicode(text: str, words: int) -> None:
    """The first sentence with words is the example of Unicode's Annex 29."""
    assert count_words(text) == words


def test_counts_by_hand() -> None:
    """The only merge is a and b."""
    tokenizer = train_byte_pairs(["ab ab ab"], vocab_size=258, special=["<|end|>"], least_count=2)
    measure = Measure(tokenizer)
    measure.add("de", ["süß <|end|>", "ab"], words=3)
    measure.add("el", ["ά"], words=1)
    assert measure.languages["de"] == Count(
        texts=2, bytes=15, words=3, tokens=14, one_byte=13, broken=4
    )
    assert measure.languages["el"] == Count(
        texts=1, bytes=2, words=1, tokens=2, one_byte=2, broken=2
    )
    assert measure.total() == Count(texts=3, bytes=17, words=4, tokens=16, one_byte=15, broken=6)
    assert measure.total().ratios() == {
        "bytes_per_token": 17 / 16,
        "tokens_per_word": 4,
        "one_byte": 15 / 16,
        "broken": 6 / 16,
        "unknown": 0,
    }
    met = len(set("süß <|end|>ά".encode())) + 1
    assert measure.unused() == pytest.approx(1 - met / 257)
    assert Count().ratios()["bytes_per_token"] == 0


def test_bytes_of_tokens_make_the_text() -> None:
    """Of bytes and of pieces; a text of pieces has one space before it."""
    tokenizers = [
        train_byte_pairs(corpus(), vocab_size=800, special=["<|end|>"], least_count=2),
        found_in_model(
            train_pieces(
                corpus(), model_type=ModelType.UNIGRAM, vocab_size=1000, special=["<e>", "<p>"]
            )
        ).tokenizer,
    ]
    for tokenizer, before in zip(tokenizers, (b"", b" "), strict=True):
        tokenizer.add_tokens([AddedToken("naïve", special=False)])
        tokenizer.encode_special_tokens = True
        spelled = bytes_by_id(tokenizer)
        for text in texts():
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert b"".join(spelled[number] for number in ids) == before + text.encode()


def test_unknown_words_are_counted() -> None:
    tokenizer = train_word_pieces(corpus, vocab_size=600, special=["[PAD]"], least_count=2)
    measure = Measure(tokenizer, "[UNK]")
    measure.add("en", ["the ships \u16a0\u16a1 the"], words=4)
    assert measure.languages["en"].unknown == 1
    assert measure.total().ratios()["unknown"] == 1 / measure.total().tokens
    assert all(token and "##" not in token for token in measure.longest())


def test_batches_are_all_texts_in_order() -> None:
    given = [text * 50_000 for text in SENTENCES.values()]
    batches = list(in_batches(given))
    assert [text for batch in batches for text in batch] == given
    assert len(batches) > 3
    assert list(in_batches([])) == []
