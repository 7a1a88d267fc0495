"""Texts to token ids by the fastest library that gives the ids of Hugging Face's tokenizers.

gigatoken (Rust, MIT) encodes byte-level BPE, and SentencePiece's BPE with byte fallback, 40 to 100
times as fast. It takes a whole batch at once: SEPARATOR is made a token of its own, so the texts
are encoded apart and told apart in the ids. It is used when its ids equal those of tokenizers on
texts that are hard to encode and on a sample of the job's own; otherwise tokenizers are, and
`BulkEncoder.why` says why.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from megatron_jobs.errors import UserError
from megatron_jobs.text.batches import BETWEEN, SEPARATOR, cut_texts
from megatron_jobs.text.bounded_tokenizer import BoundedTokenizer
from megatron_jobs.text.encoder import Encoder

Choice = Literal["auto", "gigatoken", "tokenizers"]
Ids = NDArray[np.uint32]
Encode = Callable[[bytes, NDArray[np.int64]], Ids]
MARKS = 64
"""Added tokens that are tried in texts."""
HARD = (
    "",
    " ",
    "\n",
    "a",
    " a",
    "a ",
    "  a  ",
    "\n\n a\n\n",
    "a\n",
    "a\r\nb\r\n\r\n",
    "a\tb\t\t c",
    "x" * 300,
    " " * 300,
    "\n" * 300,
    "0123456789 12 123 1234 12345678901234567890 1,000,000.00 3.14e-10",
    "I'm you're he'll we've they'd it's I'M YOU'RE 's 't 'tis '' '",
    "don\u2019t \u201cquote\u201d \u2014 \u2013 \u2026 \u00ab\u00bb",
    "\u00e9 e\u0301 \u00e5 A\u030a \ufb01 \u2126 \u03a9 \u1e9b\u0323",
    "你好，世界。こんにちは カタ ｶﾀ 안녕하세요",
    "Привет мир Γειά שלום مرحبا नमस्ते สวัสดี",
    "😀 👨\u200d👩\u200d👧 🇩🇪 👍🏽 ❤\ufe0f",
    "\x00 \x01\x02 \x7f \x80 \x85 \xa0 \xad \u200b\u200e \u2028 \u2029 \u3000 \ufeff \ufffd \uffff",
    "\u0130\u0131 \u00df\u1e9e \u01c5 \u02b0 \u2160 \u00b2\u00bd \u0661\u0662 \U0001d7d8 \u00aa",
    "def f(x):\n    return {'a': [1, 2], \"b\": x ** 2}  # \\n\n\n\tif (a && b) || !c; <T>&*p->q",
    "http://user@example.com:80/a_b/c-d?e=%20&f#g __init__ camelCase SNAKE_CASE kebab-case v1.2.3",
    "   leading\n   and   trailing   \n  \n",
    "\u2581 \u2581\u2581a \u0120a \u010a <0x0A> <unk> </s> <s> [UNK] [CLS] <|im_start|>",
    "the the the The THE tHe " * 20,
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "e\u0301" * 50,
)
"""Texts on which encoders have been seen to differ, or might."""


@dataclass(frozen=True, kw_only=True)
class BulkEncoder:
    """Encodes batches of texts."""

    name: Literal["gigatoken", "tokenizers"]
    why: str
    """Why it is tokenizers; empty when it need not be explained."""
    separator: int
    """The id that stands between texts."""
    before: Sequence[int] = ()
    """Ids that begin each text, and are not in what `encode` gives."""
    after: Sequence[int] = ()
    encode: Encode
    """Ids of texts that stand, of so many bytes each, with SEPARATOR between them."""


def bulk_encoder(
    encoder: Encoder, choice: Choice, sample: Callable[[], Iterable[str]]
) -> BulkEncoder:
    """The encoder for large amounts of text.

    Args:
        choice: auto takes gigatoken where it gives the same ids, else tokenizers.
        sample: texts of the job, on which both are compared.
    Raises: UserError when gigatoken must be taken and cannot.
    """
    slow = by_tokenizers(encoder)
    if choice == "tokenizers":
        return slow
    try:
        return _proven(encoder, slow, sample())
    except _Unfit as reason:
        if choice == "gigatoken":
            raise UserError(f"encoder: gigatoken cannot be used: {reason}; take auto") from None
        return by_tokenizers(encoder, why=str(reason))


MORE_THAN_A_FRAME = "the template does more than to begin and end a text"
OTHER_IDS = "its ids differ from those of tokenizers"


class _Unfit(Exception):
    """Why gigatoken cannot encode for this tokenizer."""


def by_tokenizers(encoder: Encoder, why: str = "") -> BulkEncoder:
    """Encodes with Hugging Face's own library."""
    separator = encoder.vocab_size

    def encode(texts: bytes, sizes: NDArray[np.int64]) -> Ids:
        each = [text.decode("utf-8") for text in cut_texts(texts, sizes)]
        return _joined(encoder.encode(each), separator)

    return BulkEncoder(name="tokenizers", why=why, separator=separator, encode=encode)


def _joined(ids: Iterable[Sequence[int] | Ids], separator: int) -> Ids:
    between = np.array([separator], np.uint32)
    parts: list[Ids] = []
    for one in ids:
        parts += [between, np.asarray(one, dtype=np.uint32)]
    return np.concatenate(parts[1:]) if parts else np.empty(0, np.uint32)


def _proven(encoder: Encoder, slow: BulkEncoder, sample: Iterable[str]) -> BulkEncoder:
    """gigatoken's encoder, compared with the slow one: batches at once, or else text by text."""
    backend = _backend(encoder, slow.separator)
    ways, before, after = _proven_on_hard_texts(encoder, slow.separator)
    texts = list(sample)
    bare = replace(encoder, template=False).encode(texts)
    if encoder.template and not _fits(bare, encoder.encode(texts), before, after):
        raise _Unfit(MORE_THAN_A_FRAME)
    for one_by_one in ways:
        encode = _gigatoken(backend, encoder, slow.separator, one_by_one)
        if _gives(encode, texts, bare, slow.separator):
            return BulkEncoder(
                name="gigatoken",
                why="",
                separator=slow.separator,
                before=before,
                after=after,
                encode=encode,
            )
    raise _Unfit(OTHER_IDS)


@lru_cache(maxsize=1)
def _proven_on_hard_texts(
    encoder: Encoder, separator: int
) -> tuple[list[bool], list[int], list[int]]:
    """What does not depend on the input: which of batches at once (False) and text by text (True)
    give the slow encoder's ids, and what a template puts before and after each text."""
    backend = _backend(encoder, separator)
    texts = [*HARD, *_with_marks(encoder)]
    bare = replace(encoder, template=False).encode(texts)
    before, after = _frame(bare, encoder.encode(texts)) if encoder.template else ([], [])
    ways = [
        one_by_one
        for one_by_one in (False, True)
        if _gives(_gigatoken(backend, encoder, separator, one_by_one), texts, bare, separator)
    ]
    if not ways:
        raise _Unfit(OTHER_IDS)
    return ways, before, after


def _gives(encode: Encode, texts: list[str], ids: list[list[int]], separator: int) -> bool:
    """Whether the ids of texts are these."""
    raws = [text.encode("utf-8") for text in texts]
    sizes = np.array([len(raw) for raw in raws], dtype=np.int64)
    return np.array_equal(encode(BETWEEN.join(raws), sizes), _joined(ids, separator))


def _backend(encoder: Encoder, separator: int) -> BoundedTokenizer:
    """gigatoken's tokenizer, with SEPARATOR as one more token."""
    if encoder.file is None:
        raise _Unfit("there is no tokenizer.json")
    special = not encoder.tokenizer.encode_special_tokens
    return _loaded(encoder.file, encoder.hash, special, separator)


@lru_cache(maxsize=1)
def _loaded(file: Path, _hash: str, special: bool, separator: int) -> BoundedTokenizer:
    try:
        from gigatoken.gigatoken_rs import load_hf_json
    except ImportError:
        raise _Unfit("it is not installed") from None
    config = orjson.loads(file.read_bytes())
    tokens = config.get("added_tokens") or []
    if not special:  # their names are text as any other
        tokens = [token for token in tokens if not token.get("special")]
    no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    between = {"id": separator, "content": SEPARATOR, "special": True, **no}
    config |= {"added_tokens": [*tokens, between], "truncation": None, "padding": None}
    try:
        return BoundedTokenizer(load_hf_json, orjson.dumps(config))
    except RuntimeError as error:  # what it raises for all that it does not know
        raise _Unfit(str(error).partition("\n")[0]) from None


def preload(encoder: Encoder) -> None:
    """Load and try gigatoken's tokenizer now: ranks forked later need not do it again."""
    with suppress(_Unfit):
        _proven_on_hard_texts(encoder, encoder.vocab_size)


def _gigatoken(
    backend: BoundedTokenizer, encoder: Encoder, separator: int, one_by_one: bool
) -> Encode:
    """Encodes a whole batch at once where it can, each text by itself where it must."""
    bare = replace(encoder, template=False)

    def encode_one(text: bytes) -> Sequence[int] | Ids:
        if BETWEEN in text:  # would be taken for what stands between texts
            return bare.encode([text.decode("utf-8")])[0]
        return backend.encode(text)

    def encode(texts: bytes, sizes: NDArray[np.int64]) -> Ids:
        if len(sizes) and not one_by_one:
            ids = backend.encode(texts)
            if np.count_nonzero(ids == separator) == len(sizes) - 1:
                return ids
        return _joined(map(encode_one, cut_texts(texts, sizes)), separator)

    return encode


def _with_marks(encoder: Encoder) -> list[str]:
    """Texts with the names of added tokens in them."""
    added = encoder.tokenizer.get_added_tokens_decoder().values()
    names = [token.content for token in added][:MARKS]
    return [text for name in names for text in (name, f"a{name}b", f" {name} {name}{name}\n{name}")]


def _frame(bare: list[list[int]], framed: list[list[int]]) -> tuple[list[int], list[int]]:
    """What a template puts before and after each text."""
    size = len(framed[0]) - len(bare[0])
    for cut in range(size + 1):
        before, after = framed[0][:cut], framed[0][len(framed[0]) - size + cut :]
        if _fits(bare, framed, before, after):
            return before, after
    raise _Unfit(MORE_THAN_A_FRAME)


def _fits(
    bare: list[list[int]], framed: list[list[int]], before: list[int], after: list[int]
) -> bool:
    return all([*before, *ids, *after] == whole for ids, whole in zip(bare, framed, strict=True))
