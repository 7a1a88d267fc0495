"""Tokenizers in and out of every format: one that this library holds, and the files it goes to.

    tokenizer.json    Hugging Face's; the folder beside it names the roles of special tokens
    sentencepiece     .model: BPE and Unigram
    tiktoken          .tiktoken: ranks; the pattern and special tokens by the file's name (KNOWN),
                      from the .json that is written beside it, or given
    merges            vocab.json and merges.txt (encoder.json and vocab.bpe): byte-level BPE
    wordpiece         vocab.txt: BERT's

To add one: a reader that gives a `tokenizers.Tokenizer`, a writer that refuses what it cannot keep.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tokenizers import AddedToken, Tokenizer

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import read_json, write_json
from megatron_jobs.text.byte_pairs import PAIRS, read_merges, write_merges
from megatron_jobs.text.piece_model import model_of_tokenizer
from megatron_jobs.text.piece_tokenizer import tokenizer_of_model
from megatron_jobs.text.sentencepiece_format import (
    PieceType,
    SentencePieceModel,
    read_model,
    write_model,
)
from megatron_jobs.text.split_patterns import pattern_of
from megatron_jobs.text.tiktoken_format import (
    BESIDE,
    END,
    KNOWN,
    Ranks,
    ranks_of,
    read_ranks,
    tokenizer_of_ranks,
    write_ranks,
)
from megatron_jobs.text.word_pieces import FILE as WORD_PIECES
from megatron_jobs.text.word_pieces import UNKNOWN, read_word_pieces, write_word_pieces

Format = Literal["sentencepiece", "tiktoken", "merges", "wordpiece"]
JSON = "tokenizer.json"
SENTENCEPIECE = "tokenizer.model"
BERT_ROLES = {
    "eos_token": "[SEP]",
    "sep_token": "[SEP]",
    "cls_token": "[CLS]",
    "pad_token": "[PAD]",
    "unk_token": UNKNOWN,
    "mask_token": "[MASK]",
}
ROLES = ("bos_token", *BERT_ROLES)
"""What transformers calls the special tokens that it knows by what they do."""
NO_LIMIT = 10**30
"""What transformers writes for a tokenizer without a longest text."""


@dataclass(frozen=True)
class Found:
    """A tokenizer, and which of its tokens begin, end and fill up texts."""

    tokenizer: Tokenizer
    roles: dict[str, str] = field(default_factory=dict)
    """Some of ROLES -> token."""


def read_tokenizer(path: Path, *, pattern: str | None = None, lowercase: bool = True) -> Found:
    """The tokenizer of a file of any format, or of the first such file in a folder.

    Args:
        pattern: of rank and merge files: a name of PATTERNS or a pattern; None for what the file's
            name or the file beside it says, GPT-2's for merges.
        lowercase: of a vocab.txt, which does not say it.
    Raises: UserError for what is no tokenizer, DataError for a damaged one.
    """
    file = _file_in(path) if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file}: no such file or folder")
    with file.open("rb") as opened:
        head = opened.read(1)
    if file.suffix == ".tiktoken":
        return _of_ranks(file, pattern)
    if file.suffix == ".txt" and file.name != "merges.txt":
        tokenizer = read_word_pieces(file, lowercase=lowercase)
        return Found(tokenizer, bert_roles(tokenizer))
    if head == b"\n":  # the key of a model's first piece
        return found_in_model(read_model(file))
    return _of_json(file, pattern)


def save_tokenizer(found: Found, folder: Path) -> None:
    """Write what transformers.AutoTokenizer.from_pretrained reads."""
    found.tokenizer.save(str(folder / JSON))
    write_json(folder / "special_tokens_map.json", found.roles)
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": NO_LIMIT,
            **found.roles,
        },
    )


def write_formats(found: Found, formats: Sequence[Format], folder: Path) -> None:
    """Write a tokenizer in further formats; UserError with the reason why one cannot keep it."""
    for name in formats:
        WRITERS[name](found, folder)


def with_special(found: Found, special: Sequence[str], roles: Mapping[str, str]) -> Found:
    """A tokenizer with further special tokens after its ids, those that it has not, and roles."""
    names = dict.fromkeys([*roles.values(), *special])
    added = [AddedToken(name, special=True, normalized=False) for name in names]
    found.tokenizer.add_special_tokens(added)
    return Found(found.tokenizer, found.roles | dict(roles))


def pad_vocabulary(found: Found, multiple: int) -> None:
    """Add reserved special tokens until the size of the vocabulary is a multiple."""
    size = max(found.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    names = [f"<|reserved_{number}|>" for number in range(-size % multiple)]
    with_special(found, names, {})


def bert_roles(tokenizer: Tokenizer) -> dict[str, str]:
    """The roles of BERT's special tokens, of those that a tokenizer has."""
    return {
        role: token
        for role, token in BERT_ROLES.items()
        if tokenizer.token_to_id(token) is not None
    }


def found_in_model(model: SentencePieceModel) -> Found:
    """The tokenizer of a SentencePiece model, with its roles."""
    ids = {"bos_token": model.bos_id, "eos_token": model.eos_id, "pad_token": model.pad_id}
    roles = {role: model.pieces[number].text for role, number in ids.items() if number >= 0}
    tokenizer = tokenizer_of_model(model)
    unknown = next(piece.text for piece in model.pieces if piece.type == PieceType.UNKNOWN)
    return Found(tokenizer, roles | {"unk_token": unknown})


def _file_in(folder: Path) -> Path:
    wanted = [JSON, SENTENCEPIECE, *(pair[0] for pair in PAIRS), WORD_PIECES]
    there = [folder / name for name in wanted if (folder / name).is_file()]
    there += sorted([*folder.glob("*.tiktoken"), *folder.glob("*.model")])
    if not there:
        raise UserError(f"{folder}: has no {', '.join(wanted)}, .tiktoken or .model")
    return there[0]


def _of_ranks(file: Path, pattern: str | None) -> Found:
    beside = file.with_name(file.name + BESIDE)
    known = next((KNOWN[name] for name in KNOWN if file.name.startswith(name)), None)
    special: dict[str, int] = {}
    if pattern is not None:
        found = pattern_of(pattern)
    elif beside.is_file():
        values = read_json(beside)
        found, special = values["pattern"], values["special_tokens"]
    elif known is not None:
        found, special = known
    else:
        names = ", ".join(KNOWN)
        cure = f"give it, or one of {names} by name"
        raise UserError(f"pattern: found none, and {file} does not say its own; {cure}")
    tokenizer = tokenizer_of_ranks(Ranks(read_ranks(file), found, special))
    return Found(tokenizer, {"eos_token": END} if END in special else {})


def _of_json(file: Path, pattern: str | None) -> Found:
    pair = next((pair for pair in PAIRS if file.name in pair), None)
    if pair is not None:
        tokenizer = read_merges(
            file.with_name(pair[0]), file.with_name(pair[1]), pattern=pattern_of(pattern or "gpt2")
        )
        ends = {"eos_token": END} if tokenizer.token_to_id(END) is not None else {}
        return Found(tokenizer, ends | _roles_beside(file.parent))
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no narrower one
        rule = "must be tokenizer.json, .model, .tiktoken, vocab.json with merges.txt or vocab.txt"
        raise DataError(f"{file}: not a tokenizer ({error}); {rule}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return Found(tokenizer, _roles_beside(file.parent))


def _roles_beside(folder: Path) -> dict[str, str]:
    """What the files beside a tokenizer say of its special tokens."""
    roles: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        values = read_json(folder / name) if (folder / name).is_file() else {}
        for role in ROLES:
            token = values.get(role)
            if token:
                roles[role] = str(token["content"] if isinstance(token, dict) else token)
    return roles


WRITERS: dict[str, Callable[[Found, Path], None]] = {
    "sentencepiece": lambda found, folder: write_model(
        model_of_tokenizer(found.tokenizer, found.roles), folder / SENTENCEPIECE
    ),
    "tiktoken": lambda found, folder: write_ranks(ranks_of(found.tokenizer), folder),
    "merges": lambda found, folder: write_merges(found.tokenizer, folder),
    "wordpiece": lambda found, folder: write_word_pieces(found.tokenizer, folder),
}
