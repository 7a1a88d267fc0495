#!/usr/bin/env python3
"""Ids of tokenizers read from other formats against those of the library that each format is of.

    tools/bench/vocabularies.py --texts records.jsonl VOCABULARY...

A vocabulary is a .tiktoken file named as OpenAI's (against tiktoken, with its own pattern and
special tokens), a SentencePiece .model (against sentencepiece), or a folder of encoder.json and
vocab.bpe or of vocab.json and merges.txt (against tokenizers' ByteLevelBPETokenizer). Each is also
written in its own format again, and that is read by the library once more.

Printed: texts whose ids are equal, of all; of Unigram the others too, where the score of our way is
at least the library's, which adds in float32.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sentencepiece
import tiktoken
from tiktoken.load import load_tiktoken_bpe
from tiktoken_ext import openai_public
from tokenizers import ByteLevelBPETokenizer

from megatron_jobs.text.byte_pairs import PAIRS
from megatron_jobs.text.language_sample import read_sample
from megatron_jobs.text.sentencepiece_format import ModelType, PieceType, read_model
from megatron_jobs.text.tokenizer_files import Found, read_tokenizer, write_formats

Encode = Callable[[list[str]], list[list[int]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=RAW)
    parser.add_argument("vocabularies", nargs="+", type=Path)
    parser.add_argument("--texts", action="append", type=Path, required=True)
    parser.add_argument("--mb", type=float, default=1, help="of each language")
    asked = parser.parse_args()
    sample = read_sample(
        asked.texts, key="text", group="language", letters=int(asked.mb * 1e6), limit=10**9
    )
    texts = sample.all()
    print(f"{len(texts)} texts, {sum(map(len, texts)):,} characters, {len(sample.texts)} languages")
    for path in asked.vocabularies:
        compare(path, texts)


def compare(path: Path, texts: list[str]) -> None:
    """Print how many texts have equal ids, read here and written again."""
    start = time.perf_counter()
    found = read_tokenizer(path)
    seconds = time.perf_counter() - start
    name, encode = reference(path)
    expected = encode(texts)
    ours = encode_with(found, texts)
    equal = sum(a == b for a, b in zip(ours, expected, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        write_formats(found, [name], Path(folder))
        back = rewritten(name, Path(folder), found)(texts)
    again = sum(a == b for a, b in zip(back, expected, strict=True))
    tokens = sum(map(len, expected))
    print(
        f"{path.name}: {name}, read in {seconds:.1f} s, {tokens:,} tokens; "
        f"equal {equal}, written again {again}, of {len(texts)}{said_of_ties(path, ours, expected)}"
    )


def encode_with(found: Found, texts: list[str]) -> list[list[int]]:
    found.tokenizer.encode_special_tokens = True
    encodings = found.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def reference(path: Path) -> tuple[str, Encode]:
    """The library's own reading of a vocabulary."""
    if path.is_dir():
        pair = next(pair for pair in PAIRS if (path / pair[0]).exists())
        return "merges", byte_level(path / pair[0], path / pair[1])
    if path.suffix == ".tiktoken":
        openai_public.load_tiktoken_bpe = lambda *_, **__: load_tiktoken_bpe(str(path))
        encoding = tiktoken.Encoding(**getattr(openai_public, path.stem)())
        return "tiktoken", encoding.encode_ordinary_batch
    return "sentencepiece", sentencepiece.SentencePieceProcessor(model_file=str(path)).encode


def rewritten(name: str, folder: Path, found: Found) -> Encode:
    """The library's reading of what was written here."""
    if name == "merges":
        return byte_level(folder / "vocab.json", folder / "merges.txt")
    if name == "sentencepiece":
        file = folder / "tokenizer.model"
        return sentencepiece.SentencePieceProcessor(model_file=str(file)).encode
    from megatron_jobs.runtime.files import read_json

    beside = read_json(folder / "tokenizer.tiktoken.json")
    ranks = load_tiktoken_bpe(str(folder / "tokenizer.tiktoken"))
    special = beside["special_tokens"]
    encoding = tiktoken.Encoding(
        "again", pat_str=beside["pattern"], mergeable_ranks=ranks, special_tokens=special
    )
    return encoding.encode_ordinary_batch


def byte_level(vocab: Path, merges: Path) -> Encode:
    tokenizer = ByteLevelBPETokenizer(str(vocab), str(merges))
    return lambda texts: [one.ids for one in tokenizer.encode_batch(texts)]


def said_of_ties(path: Path, ours: list[list[int]], theirs: list[list[int]]) -> str:
    """Of Unigram, by how much the score of our way is above the library's where they differ."""
    unequal = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    if not unequal or path.is_dir() or path.suffix == ".tiktoken":
        return ""
    model = read_model(path)
    if model.model_type != ModelType.UNIGRAM:
        return ""
    normal = [piece.score for piece in model.pieces if piece.type == PieceType.NORMAL]
    unknown = min(normal) - 10
    scores = [p.score if p.type == PieceType.NORMAL else unknown for p in model.pieces]
    gains = [sum(scores[i] for i in a) - sum(scores[i] for i in b) for a, b in unequal]
    return f"; where not, our score is above by {min(gains):.4f} to {max(gains):.4f}"


RAW = argparse.RawDescriptionHelpFormatter

if __name__ == "__main__":
    main()
