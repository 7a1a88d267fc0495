"""BERT's WordPiece: trained on texts, read from a vocab.txt and written to one.

Lossy: white space, control signs, with `lowercase` capitals and accents, and each word with a sign
that the vocabulary lacks do not come back.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.text.byte_pairs import UNICODE

FILE = "vocab.txt"
UNKNOWN = "[UNK]"
INSIDE = "##"
"""Begins a token that does not begin a word."""
BERT_NAMES = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
"""The special tokens of BERT's own vocabularies."""
LETTER_SHARE = 4
"""One in so many tokens may be a single letter; as many more stand inside words."""


def train_word_pieces(
    texts: Callable[[], Iterable[str]],
    *,
    vocab_size: int,
    special: Sequence[str],
    least_count: int,
    lowercase: bool = True,
    normalizer: str = "none",
) -> Tokenizer:
    """A tokenizer with at most `vocab_size` tokens; equal texts give equal tokenizers.

    Args:
        texts: gives them anew each time; they are read twice.
        special: tokens with the first ids; [UNK] follows them.
        least_count: times that a pair must occur to be merged.
        lowercase: capitals become small and accents go.
    Source: Schuster and Nakajima 2012; Devlin et al. 2019, arXiv:1810.04805.
    """
    tokenizer = _words_of(models.WordPiece(unk_token=UNKNOWN), lowercase, normalizer)
    names = list(dict.fromkeys([*special, UNKNOWN]))
    letters = _letters(tokenizer, texts(), most=vocab_size // LETTER_SHARE)
    # the trainer numbers letters inside words in the order of a hash map, unless they are there
    inside = [INSIDE + letter for letter in letters if _goes_inside(tokenizer, letter)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=least_count,
        special_tokens=[*names, *inside],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        continuing_subword_prefix=INSIDE,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    trained = _words_of(models.WordPiece(vocab, unk_token=UNKNOWN), lowercase, normalizer)
    _make_special(trained, names)
    return trained


def read_word_pieces(path: Path, *, lowercase: bool = True) -> Tokenizer:
    """The tokenizer of a vocab.txt, a token a line; those of BERT_NAMES are special.

    Raises: DataError when a token comes twice, or there is no [UNK].
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    tokens = lines[:-1] if lines[-1] == "" else lines
    vocab = {token.rstrip("\r"): place for place, token in enumerate(tokens)}
    if len(vocab) < len(tokens) or UNKNOWN not in vocab:
        fault = "a token comes twice" if len(vocab) < len(tokens) else f"has no {UNKNOWN}"
        raise DataError(f"{path}: {fault}; a vocab.txt of BERT's has each token once, a line each")
    tokenizer = _words_of(models.WordPiece(vocab, unk_token=UNKNOWN), lowercase)
    _make_special(tokenizer, [token for token in vocab if token in BERT_NAMES])
    return tokenizer


def write_word_pieces(tokenizer: Tokenizer, folder: Path) -> None:
    """Write folder/vocab.txt; UserError, with the reason, when it would give other ids."""
    state = json.loads(tokenizer.to_str())
    kinds = [(state[part] or {}).get("type") for part in ("model", "normalizer", "pre_tokenizer")]
    if kinds != ["WordPiece", "BertNormalizer", "BertPreTokenizer"]:
        named = ", ".join(str(kind) for kind in kinds)
        raise UserError(_refused(f"it is made of {named}, not of BERT's WordPiece and no more"))
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise UserError(_refused("an id has no token, and so no line"))
    rows = sorted(vocab, key=vocab.__getitem__)
    (folder / FILE).write_text("".join(f"{token}\n" for token in rows), encoding="utf-8")


def _words_of(model: models.Model, lowercase: bool, normalizer: str = "none") -> Tokenizer:
    tokenizer = Tokenizer(model)
    bert = normalizers.BertNormalizer(lowercase=lowercase)
    unicode = [UNICODE[normalizer]()] if normalizer in UNICODE else []
    tokenizer.normalizer = normalizers.Sequence([*unicode, bert]) if unicode else bert
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=INSIDE)
    return tokenizer


def _make_special(tokenizer: Tokenizer, names: Sequence[str]) -> None:
    added = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.add_special_tokens(added)


def _letters(tokenizer: Tokenizer, texts: Iterable[str], *, most: int) -> list[str]:
    """The most frequent letters of normalized texts, in the order of their code points."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(tokenizer.normalizer.normalize_str(text))
    order = sorted(counts, key=lambda letter: (-counts[letter], letter))
    return sorted([letter for letter in order if not letter.isspace()][:most])


def _goes_inside(tokenizer: Tokenizer, letter: str) -> bool:
    """Whether a letter between two others makes one word with them."""
    text = tokenizer.normalizer.normalize_str(f"a{letter}a")
    return len(tokenizer.pre_tokenizer.pre_tokenize_str(text)) == 1


def _refused(reason: str) -> str:
    return f"formats: found wordpiece, which cannot keep this tokenizer: {reason}; leave it out"
