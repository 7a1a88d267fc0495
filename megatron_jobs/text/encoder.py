"""Text to token ids, by the tokenizer.json of a Hugging Face tokenizer."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import file_hash


@dataclass(frozen=True)
class Encoder:
    """A tokenizer and what a token file has to know of it."""

    tokenizer: Tokenizer
    vocab_size: int
    """All ids are below it."""
    eod: int | None
    """The id that ends a document."""
    hash: str
    """SHA-256 of tokenizer.json."""
    template: bool
    """Whether the tokenizer's own template (such as a token that begins a text) is applied."""
    file: Path | None = None
    """Its tokenizer.json."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=self.template)
        return [encoding.ids for encoding in encodings]


def load_encoder(
    path: Path, *, eod: str | None = None, special_in_text: bool = False, template: bool = False
) -> Encoder:
    """The encoder of a tokenizer folder, or of a tokenizer.json.

    Args:
        eod: the token that ends a document; None for the eos_token of the folder's
            tokenizer_config.json or special_tokens_map.json.
        special_in_text: whether a special token's name in a text becomes that token.
        template: whether the tokenizer's template adds its special tokens to each text.
    Raises: UserError when there is no tokenizer.json or no such token, DataError when it is
        damaged.
    """
    file = _tokenizer_file(path)
    tokenizer = _read_tokenizer(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = not special_in_text
    name = eod or _named_eos(file.parent)
    number = tokenizer.token_to_id(name) if name else None
    if name and number is None:
        raise UserError(f"eod: found {name!r}, which {file} does not know; name one of its tokens")
    return Encoder(tokenizer, _least_vocab(tokenizer), number, file_hash(file), template, file)


def check_tokenizer(path: Path, expected_hash: str | None, what: str) -> None:
    """Raise UserError unless a tokenizer is the one that `what` was made with.

    Args:
        path: its folder, or its tokenizer.json.
        expected_hash: SHA-256 of the tokenizer.json that is noted in `what`; None agrees with any.
        what: names the index or the checkpoint.
    """
    file = _tokenizer_file(path)
    found = file_hash(file)
    if expected_hash is not None and found != expected_hash:
        made = f"{what} was made with another one, {expected_hash[:12]}"
        raise UserError(f"tokenizer: found {file} (sha256 {found[:12]}), {made}; give that one")


def _tokenizer_file(path: Path) -> Path:
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such file; a fast Hugging Face tokenizer has one")
    return file


def _read_tokenizer(file: Path) -> Tokenizer:
    raw = file.read_bytes()
    try:
        return Tokenizer.from_buffer(raw)
    except Exception as error:  # the library raises no narrower one
        kind = "not a tokenizer" if _is_json(raw) else "not JSON"
        raise DataError(f"{file}: {kind}: {error}") from error


def _least_vocab(tokenizer: Tokenizer) -> int:
    """One more than the largest id."""
    tokens = tokenizer.get_vocab_size(with_added_tokens=True)
    if None not in map(tokenizer.id_to_token, range(tokens)):  # as nearly always, and quick to see
        return tokens
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:  # of JSON, or of UTF-8
        return False
    return True


def _named_eos(folder: Path) -> str | None:
    """The eos_token that the files beside tokenizer.json name."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = folder / name
        values: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        token = values.get("eos_token")
        if token:
            return str(token["content"] if isinstance(token, dict) else token)
    return None
