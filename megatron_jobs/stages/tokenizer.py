"""A tokenizer trained on text, or taken from a file of another format, as transformers loads it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.runtime.files import remove, whole_folder
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import Facts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from megatron_jobs.text.sentencepiece_format import SentencePieceModel
    from megatron_jobs.text.tokenizer_corpus import Corpus
    from megatron_jobs.text.tokenizer_files import Found

OUTPUTS = ("tokenizer",)
RESOURCES = Resources()
BYTES = 256
LEAST_COVERAGE = 0.98
NAMES = {
    "bpe": ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"),
    "unigram": ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"),
    "wordpiece": ("[SEP]", "[PAD]", "[UNK]", "[CLS]", "[MASK]"),
}
"""Kind -> what ends a document, fills up, and further special tokens, when nobody names others."""
WAYS = {
    "pattern": ("bpe", "source"),
    "lowercase": ("wordpiece", "source"),
    "single_digits": ("bpe", "unigram", "bpe of characters"),
    "byte_fallback": ("unigram", "bpe of characters"),
    "character_coverage": ("unigram", "bpe of characters"),
    "least_count": ("bpe", "wordpiece"),
}
"""Setting -> the ways to a tokenizer that heed it."""
NORMALIZERS = {
    "bpe": ("none", "nfc", "nfd", "nfkc", "nfkd"),
    "wordpiece": ("none", "nfc", "nfd", "nfkc", "nfkd"),
    "unigram": ("none", "nfkc", "nmt_nfkc"),
    "bpe of characters": ("none", "nfkc", "nmt_nfkc"),
    "source": ("none",),
}
FORMATS = {
    "bpe": ("tiktoken", "merges"),
    "unigram": ("sentencepiece",),
    "bpe of characters": ("sentencepiece",),
    "wordpiece": ("wordpiece",),
}


class Config(Settings):
    """What the tokenizer learns from, or which one is taken, and how it goes about text."""

    input: tuple[InputPath, ...] = ()
    """Files or folders: .jsonl or .json with an object a line, .txt with a document a file; packed
    ones of each too."""
    source: InputPath | None = None
    """A tokenizer to take instead of training one: tokenizer.json, SentencePiece's .model,
    .tiktoken, vocab.json beside merges.txt, BERT's vocab.txt, or a folder with one of them."""
    key: str = "text"
    """Of the text in a line's object."""
    share: float = 1.0
    """Of the documents, chosen by a hash of their text, that are learned from; unigram and bpe of
    characters hold all of it in memory."""
    kind: Literal["bpe", "unigram", "wordpiece"] = "bpe"
    """Byte pairs; SentencePiece's unigram model; BERT's word pieces, which lose white space and
    unknown words."""
    alphabet: Literal["bytes", "characters"] = "bytes"
    """What bpe merges: bytes as GPT-2, or characters as Llama (SentencePiece's BPE)."""
    vocab_size: int = 32768
    """Tokens in all: special ones, 256 bytes, and merges as far as the text gives them."""
    multiple: int = 1
    """Reserved tokens are added until the size of the vocabulary is a multiple of it."""
    eod: str | None = None
    """The token that ends a document; also the beginning and end of a text for transformers. None
    for <|endoftext|> ([SEP] of wordpiece), or what the source says."""
    pad: str | None = None
    """The token that fills up short sequences; None for <|pad|> ([PAD] of wordpiece), or what the
    source says."""
    special: tuple[str, ...] | None = None
    """Further tokens that are never cut, such as those of a chat; None for <|im_start|> and
    <|im_end|> (BERT's of wordpiece), or those of the source."""
    normalizer: Literal["none", "nfc", "nfd", "nfkc", "nfkd", "nmt_nfkc"] = "none"
    """Unicode's form that text is brought to, for good; none keeps every byte. For unigram and
    characters nfkc and nmt_nfkc are SentencePiece's rules."""
    pattern: str = ""
    """Where text is cut before bytes are merged: gpt2, cl100k, o200k, or a pattern of one's own;
    empty for gpt2, or what the source says."""
    single_digits: bool = False
    """No token holds two digits."""
    byte_fallback: bool = True
    """Characters without a token are spelled in bytes instead of becoming unknown."""
    character_coverage: float = 0.9995
    """Share of all characters in the text that have tokens."""
    lowercase: bool = True
    """Of wordpiece: capitals become small, accents go."""
    least_count: int = 2
    """Times that a pair must occur to become a token."""
    formats: tuple[Literal["sentencepiece", "tiktoken", "merges", "wordpiece"], ...] = ()
    """Written beside tokenizer.json: tokenizer.model, tokenizer.tiktoken, vocab.json and
    merges.txt, vocab.txt."""
    max_line_mb: float = 50
    """Megabytes (10^6 bytes); a longer line is left out."""

    def way(self) -> str:
        """How the tokenizer comes to be."""
        if self.source is not None:
            return "source"
        characters = self.kind == "bpe" and self.alphabet == "characters"
        return "bpe of characters" if characters else self.kind

    def special_tokens(self) -> list[str]:
        """All special tokens, in the order of their ids; of a source only those that are added."""
        if self.source is not None:
            named = (self.eod, self.pad, *(self.special or ()))
            return [token for token in named if token is not None]
        eod, pad, *others = NAMES[self.kind]
        first = [eod if self.eod is None else self.eod, pad if self.pad is None else self.pad]
        return [*first, *(others if self.special is None else self.special)]

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work together."""
        if not self.input and self.source is None:
            yield "input", "found nothing, must name at least one file or folder"
        special = self.special_tokens()
        if len(set(special)) < len(special) or not all(special):
            yield "special", f"the special tokens {special} must differ and not be empty"
        yield from self._bad_sizes(special)
        yield from self._unheeded()
        yield from self._unkept_formats()

    def _bad_sizes(self, special: list[str]) -> Iterator[Problem]:
        least = BYTES + len(special)
        if self.vocab_size < least and self.source is None:
            parts = f"{BYTES} bytes and {len(special)} special tokens"
            yield "vocab_size", f"{self.vocab_size} is too small for {parts}; at least {least}"
        if self.multiple < 1 or (self.vocab_size % self.multiple and self.source is None):
            rule = f"must be positive and divide vocab_size = {self.vocab_size}"
            yield "multiple", f"found {self.multiple}, {rule}"
        if self.max_line_mb <= 0:
            yield "max_line_mb", f"{self.max_line_mb} leaves no line, must be positive"
        if not 0 < self.share <= 1:
            yield "share", f"found {self.share}, must be above 0 and at most 1"
        if not LEAST_COVERAGE <= self.character_coverage <= 1:
            rule = f"SentencePiece takes {LEAST_COVERAGE} to 1"
            yield "character_coverage", f"found {self.character_coverage}, {rule}"

    def _unheeded(self) -> Iterator[Problem]:
        """Settings that the way to the tokenizer does not know."""
        way = self.way()
        for name, ways in WAYS.items():
            value = getattr(self, name)
            if way not in ways and value != type(self).model_fields[name].default:
                yield name, f"found {value}, which {way} does not heed; it is of {', '.join(ways)}"
        if self.normalizer not in NORMALIZERS[way]:
            allowed = ", ".join(NORMALIZERS[way])
            yield "normalizer", f"found {self.normalizer}, which {way} has not; it has {allowed}"

    def _unkept_formats(self) -> Iterator[Problem]:
        way = self.way()
        for name in self.formats:
            if name not in FORMATS.get(way, self.formats):
                allowed = ", ".join(FORMATS[way])
                yield "formats", f"found {name}, which cannot keep a tokenizer of {way}: {allowed}"
            elif name == "tiktoken" and self.normalizer != "none":
                yield (
                    "formats",
                    f"found tiktoken, which knows no normalizer such as {self.normalizer}",
                )
            elif name == "merges" and (self.pattern, self.single_digits) != ("", False):
                yield "formats", "found merges, which do not say the pattern; leave it out"


def promise(config: Config, inputs: Mapping[str, Facts]) -> Facts:
    """At most so many tokens: a small corpus may not have as many."""
    return {"vocab_size": config.vocab_size if config.source is None else None}


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Train on all documents, or read the source, and write folder/tokenizer; the leader works."""
    from megatron_jobs.text.encoder import load_encoder
    from megatron_jobs.text.tokenizer_corpus import Corpus, measure
    from megatron_jobs.text.tokenizer_files import pad_vocabulary, save_tokenizer, write_formats

    if not rank.leads:
        return {}
    corpus = Corpus(
        config.input,
        folder,
        key=config.key,
        share=config.share,
        limit=int(config.max_line_mb * 1e6),
    )
    found = _trained(config, corpus) if config.source is None else _taken(config)
    pad_vocabulary(found, config.multiple)
    out = folder / "tokenizer"
    remove(out)
    with whole_folder(out) as part:
        save_tokenizer(found, part)
        write_formats(found, config.formats, part)
    numbers = measure(load_encoder(out), corpus.first_texts()) if config.input else {}
    size = max(found.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return {"vocabulary": size} | corpus.counts() | numbers


def _trained(config: Config, corpus: "Corpus") -> "Found":
    from megatron_jobs.text.tokenizer_files import Found, bert_roles, found_in_model, with_special

    eod, pad, *_ = config.special_tokens()
    roles = {"bos_token": eod, "eos_token": eod, "pad_token": pad}
    way = config.way()
    if way == "bpe":
        return Found(_byte_pairs(config, corpus), roles)
    if way == "wordpiece":
        tokenizer = _word_pieces(config, corpus)
        return Found(tokenizer, bert_roles(tokenizer) | roles)
    return with_special(found_in_model(_pieces(config, corpus)), (), roles)


def _byte_pairs(config: Config, corpus: "Corpus") -> "Tokenizer":
    from megatron_jobs.text.byte_pairs import train_byte_pairs
    from megatron_jobs.text.split_patterns import pattern_of

    return train_byte_pairs(
        corpus.texts(),
        vocab_size=config.vocab_size,
        special=config.special_tokens(),
        least_count=config.least_count,
        pattern=pattern_of(config.pattern or "gpt2", single_digits=config.single_digits),
        normalizer=config.normalizer,
    )


def _word_pieces(config: Config, corpus: "Corpus") -> "Tokenizer":
    from megatron_jobs.text.word_pieces import train_word_pieces

    return train_word_pieces(
        corpus.texts,
        vocab_size=config.vocab_size,
        special=config.special_tokens(),
        least_count=config.least_count,
        lowercase=config.lowercase,
        normalizer=config.normalizer,
    )


def _pieces(config: Config, corpus: "Corpus") -> "SentencePieceModel":
    from megatron_jobs.text.piece_training import train_pieces
    from megatron_jobs.text.sentencepiece_format import ModelType

    return train_pieces(
        corpus.texts(),
        model_type=ModelType.UNIGRAM if config.kind == "unigram" else ModelType.BPE,
        vocab_size=config.vocab_size,
        special=config.special_tokens(),
        normalizer=config.normalizer,
        coverage=config.character_coverage,
        byte_fallback=config.byte_fallback,
        single_digits=config.single_digits,
    )


def _taken(config: Config) -> "Found":
    from megatron_jobs.text.tokenizer_files import read_tokenizer, with_special

    assert config.source is not None, config
    found = read_tokenizer(
        config.source, pattern=config.pattern or None, lowercase=config.lowercase
    )
    named = {"eos_token": config.eod, "pad_token": config.pad}
    roles = {role: token for role, token in named.items() if token is not None}
    return with_special(found, config.special_tokens(), roles)
