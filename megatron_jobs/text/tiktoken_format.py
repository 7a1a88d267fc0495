"""Tiktoken's rank files: a token in base64 and its id on each line; the pattern beside them."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, processors

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import write_json
from megatron_jobs.text.byte_alphabet import bytes_of, spelled
from megatron_jobs.text.merge_order import last_pair
from megatron_jobs.text.split_patterns import (
    CL100K,
    GPT2,
    O200K,
    byte_level_splitter,
    pattern_in,
)

FILE = "tokenizer.tiktoken"
BESIDE = ".json"
"""After the name of a rank file: the file that keeps its pattern and special tokens."""
END = "<|endoftext|>"


@dataclass(frozen=True)
class Ranks:
    """A vocabulary as tiktoken has it."""

    ranks: dict[bytes, int]
    """Token -> id; the lowest merge first."""
    pattern: str
    special: dict[str, int] = field(default_factory=dict)


KNOWN = {
    "gpt2": (GPT2, {END: 50256}),
    "r50k": (GPT2, {END: 50256}),
    "p50k": (GPT2, {END: 50256}),
    "cl100k": (
        CL100K,
        {
            END: 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k": (O200K, {END: 199999, "<|endofprompt|>": 200018}),
}
"""Pattern and special tokens of OpenAI's vocabularies. Source: openai_public.py of tiktoken."""


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token -> id of a .tiktoken file.

    Raises: DataError for a line that is none, a token or id that comes twice, a byte without token.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            shown = line[:40].decode("utf-8", "replace")
            rule = "must be a token in base64, a space and its id"
            raise DataError(f"{path}:{number}: found {shown!r}, {rule}") from error
    if len(set(ranks.values())) != sum(bool(line) for line in path.read_bytes().splitlines()):
        raise DataError(f"{path}: a token or an id comes twice")
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise DataError(f"{path}: has no token for {len(missing)} bytes, such as {missing[0]:#04x}")
    return ranks


def tokenizer_of_ranks(found: Ranks) -> Tokenizer:
    """A tokenizer with the ids that tiktoken gives.

    Raises: DataError when two tokens share an id.
    """
    vocab = {spelled(token): rank for token, rank in found.ranks.items()}
    vocab |= found.special
    taken = set(vocab.values())
    if len(taken) < len(vocab) or len(vocab) < len(found.ranks) + len(found.special):
        raise DataError(f"special: {found.special} has names or ids that are tokens already")
    # a hole has a name with a space, which no text has in this alphabet
    vocab |= {f"unused {hole}": hole for hole in set(range(max(taken))) - taken}
    pairs = [
        last_pair(token, found.ranks)
        for token, _ in sorted(found.ranks.items(), key=lambda item: item[1])
        if len(token) > 1
    ]
    merges = [(spelled(pair[0]), spelled(pair[1])) for pair in pairs if pair]
    # tiktoken takes a whole word that is a token as it is; some are in no other way reached
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = byte_level_splitter(found.pattern)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    names = sorted(found.special, key=lambda name: found.special[name])
    added = [AddedToken(name, special=True, normalized=False) for name in names]
    tokenizer.add_special_tokens(added)
    return tokenizer


def ranks_of(tokenizer: Tokenizer) -> Ranks:
    """The ranks with which tiktoken gives a tokenizer's ids.

    Raises: UserError, with the reason, when tiktoken cannot give them.
    """
    state = json.loads(tokenizer.to_str())
    pattern = pattern_in(tokenizer.pre_tokenizer)
    if state["model"]["type"] != "BPE" or pattern is None:
        raise UserError(_refused("only byte-level BPE with one pattern has ranks of bytes"))
    if state["normalizer"] is not None:
        kind = state["normalizer"]["type"]
        raise UserError(_refused(f"it would leave out the normalizer {kind}"))
    added = {token["content"]: token["id"] for token in state["added_tokens"]}
    ranks = {
        bytes_of(token): number
        for token, number in state["model"]["vocab"].items()
        if token not in added and " " not in token
    }
    merges = [(bytes_of(a), bytes_of(b)) for a, b in map(tuple, state["model"]["merges"])]
    check_merge_order(ranks, merges, whole_words=bool(state["model"].get("ignore_merges")))
    return Ranks(ranks, pattern, added)


def check_merge_order(
    ranks: Mapping[bytes, int], merges: list[tuple[bytes, bytes]], *, whole_words: bool
) -> None:
    """Raise UserError unless ids alone tell in which order `merges` are done.

    Args:
        whole_words: a word that is a token is taken as it is, made by merges or not.
    """
    made = [ranks[a + b] for a, b in merges]
    firsts = list(dict.fromkeys(made))
    if firsts != sorted(firsts):
        raise UserError(_refused("its merges are not in the order of the ids of what they make"))
    pairs: dict[bytes, set[tuple[bytes, bytes]]] = {}
    for a, b in merges:
        pairs.setdefault(a + b, set()).add((a, b))
    for token in ranks:
        if len(token) == 1:
            continue
        pair = last_pair(token, ranks)
        if pair not in pairs.get(token, {None} if whole_words else set()):
            raise UserError(_refused(f"{token!r} is made of other parts by the order of ids"))


def write_ranks(found: Ranks, folder: Path) -> None:
    """Write folder/tokenizer.tiktoken and, beside it, its pattern and special tokens."""
    rows = sorted(found.ranks.items(), key=lambda item: item[1])
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in rows]
    (folder / FILE).write_bytes(b"".join(lines))
    write_json(
        folder / (FILE + BESIDE), {"pattern": found.pattern, "special_tokens": found.special}
    )


def _refused(reason: str) -> str:
    return f"formats: found tiktoken, which cannot keep this tokenizer: {reason}; leave it out"
